"""What a machine's site adds to it: how it breaks and is mended, its power, its file system, what it costs."""
