"""When does it happen? The executor of schedules on real clusters over MPI; nothing of it is built yet."""
