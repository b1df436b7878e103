"""What a layer of the model consists of, and the passes through it."""
