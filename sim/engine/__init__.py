"""The engines: steps on whole arrays of ranks, or rank by rank."""
