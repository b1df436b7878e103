"""Traces of runs as others draw and read them."""
