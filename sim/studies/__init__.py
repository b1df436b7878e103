"""Studies: one model on many machines or one collective over many sizes; inference."""
