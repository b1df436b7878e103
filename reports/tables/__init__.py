"""Tables for the terminal and for documentation."""
