"""One rank of the job that ``athanor doctor`` starts: the first prints what all of them found."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from ...hardware.errors import AthanorError
from ...mpi_runtime.job.environment import Launcher, prepare

if TYPE_CHECKING:
    from mpi4py import MPI

SIDE, TIMES = 512, 5
"""Of the matrices, and how often they are multiplied."""
SWAPS = 200


def main() -> None:
    """Join the job, exchange, compute."""
    prepare()
    from ...mpi_runtime.job.world import start

    try:
        launcher = Launcher.of(os.environ)
        world = start(launcher.ranks if launcher else None)
    except AthanorError as wrong:
        if str(wrong):
            print(wrong, file=sys.stderr)
        sys.exit(wrong.exit_status)
    flops = world.comm.gather(_rate())
    trip = _round_trip(world.comm)
    if world.first:
        told = {"ranks": world.size, "kernels": len(set(world.kernels)), "library": world.library}
        print(json.dumps({**told, "flops": flops, "round_trip": trip}))


def _rate() -> float:
    """FLOP/s of a product of matrices in double precision, the best of some."""
    import numpy as np

    one = np.random.default_rng(0).random((SIDE, SIDE))
    seconds = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        one @ one
        seconds.append(time.perf_counter() - begun)
    return 2.0 * SIDE**3 / min(seconds)


def _round_trip(comm: MPI.Intracomm) -> float:
    """Seconds that 8 bytes take to the next rank and back, the median; 0 alone."""
    import numpy as np

    if comm.size == 1:
        return 0.0
    word, back = np.zeros(1), np.zeros(1)
    seconds = []
    comm.Barrier()
    for _ in range(SWAPS):
        begun = time.perf_counter()
        if comm.rank == 0:
            comm.Send(word, 1)
            comm.Recv(back, 1)
        elif comm.rank == 1:
            comm.Recv(back, 0)
            comm.Send(back, 0)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
