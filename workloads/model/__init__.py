"""The model: its shape, its parts, its number formats; and the catalogue."""
