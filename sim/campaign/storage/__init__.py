"""What a job reads and writes: checkpoints, data, and the file system that they share."""
