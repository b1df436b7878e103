"""Pages and files: what is written and shown of each kind of result."""
