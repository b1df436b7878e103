"""When does it happen? Schedules executed over MPI, calibration, and the emulated cluster."""
