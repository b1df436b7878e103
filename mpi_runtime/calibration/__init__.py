"""What is this computer? Microbenchmarks over MPI, and the machine file that is made of what they measure."""
