"""Plots: a matplotlib figure each."""
