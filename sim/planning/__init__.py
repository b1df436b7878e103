"""The planner: all plans of a model on so many ranks, ranked by formula, the best of them simulated."""
