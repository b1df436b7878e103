"""One file a command, or a close pair."""
