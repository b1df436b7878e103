"""Models as others describe them: one file for architectures that are alike, one line for each in the registry."""
