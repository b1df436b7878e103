"""Executing a schedule: what a rank can do, its streams, and the Run that is observed."""
