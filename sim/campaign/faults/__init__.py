"""What strikes a job, and what becomes of its work: drawn for many seeds at once, or event by event."""
