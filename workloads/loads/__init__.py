"""Loads: how many tokens each rank carries in a layer, and which."""
