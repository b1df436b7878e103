"""Collectives message by message."""
