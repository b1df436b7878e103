"""Messages: groups of ranks, rounds of collectives over Isend and Irecv, and the library's own collectives."""
