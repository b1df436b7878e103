"""Campaigns: whole trainings on machines that break, read, write, and draw power."""
