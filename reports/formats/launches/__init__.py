"""Launches of training frameworks, read into run files and written from them."""
