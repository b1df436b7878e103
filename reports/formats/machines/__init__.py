"""Machines as others measure and describe them."""
