"""The job: its start, its environment, one clock, and which rank takes which place."""
