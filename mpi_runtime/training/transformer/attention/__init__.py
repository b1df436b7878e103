"""Attention for real: a class for each kernel that is computed."""
