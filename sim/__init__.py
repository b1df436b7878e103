"""When would it happen? The engine, the network, messages one by one, the planner, and studies."""
