"""When would it happen? The engine, the network, and studies of scaling."""
