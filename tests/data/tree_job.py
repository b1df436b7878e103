"""An MPI job for the emulated cluster: who runs where, and seconds of messages inside and across supernodes of two nodes."""

import json
import os
import socket
import statistics
from pathlib import Path

import numpy as np
from mpi4py import MPI

WORLD = MPI.COMM_WORLD
NBYTES, TIMES = 1 << 20, 5


def seconds(partner):
    """The median seconds in which every node sends a message to a partner and receives one."""
    sent, received = np.ones(NBYTES, np.uint8), np.empty(NBYTES, np.uint8)
    taken = []
    for _ in range(TIMES + 1):
        WORLD.Barrier()
        begun = MPI.Wtime()
        WORLD.Sendrecv(sent, partner, recvbuf=received, source=partner)
        taken.append(WORLD.allreduce(MPI.Wtime() - begun, MPI.MAX))
    return statistics.median(taken[1:])


mine = {
    "rank": WORLD.rank,
    "host": socket.gethostname(),
    "sharing": WORLD.Split_type(MPI.COMM_TYPE_SHARED).size,
    "folder": str(Path.cwd()),
    "cluster": os.environ["ATHANOR_CLUSTER"],
    "given": os.environ.get("GIVEN_TO_THE_JOB"),
}
found = WORLD.gather(mine)
times = {"inside": seconds(WORLD.rank ^ 1), "across": seconds(WORLD.rank ^ 2)} if WORLD.size == 4 else {}
if found is not None:
    print(json.dumps({"ranks": found, **times}))
