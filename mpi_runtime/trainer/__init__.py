"""Training for many steps: the data, the loop over steps, and checkpoints."""
