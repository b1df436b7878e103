"""Predicted runs beside measured ones."""
