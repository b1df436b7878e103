"""What was done: the Run, its summary, and the books of time behind it."""
