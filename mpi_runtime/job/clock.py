"""One clock for all ranks: the offset of each rank's to that of rank 0, and a start at the same moment."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .world import World

EXCHANGES = 20
"""Ping-pongs with each rank; the fastest one tells most."""

LEAD = 2e-3
"""Seconds from the agreement on a start to the start: longer than a message takes."""


@dataclass(frozen=True)
class Clock:
    """``now() + offset`` is the time of rank 0's clock, known to within ``uncertainty`` seconds (half the fastest round trip)."""

    offset: float
    uncertainty: float

    @classmethod
    def of(cls, world: World) -> Clock:
        """Compare clocks over messages, rank after rank (Cristian 1989); ranks of rank 0's own host share its clock."""
        here, stamp = world.comm, np.zeros(1)
        offset, uncertainty = 0.0, 0.0
        for other in range(1, world.size):
            if world.hosts[other] == world.hosts[0]:
                continue
            if world.first:
                for _ in range(EXCHANGES):
                    here.Recv(stamp, other)
                    here.Send(np.array([time.perf_counter()]), other)
            elif world.rank == other:
                offset, uncertainty = min((_compare(world) for _ in range(EXCHANGES)), key=lambda pair: pair[1])
        return cls(offset, uncertainty)

    def start_together(self, world: World) -> float:
        """Wait for a moment on which all ranks agree; returns it on the local clock."""
        world.comm.Barrier()
        moment = world.comm.bcast(time.perf_counter() + self.offset + LEAD if world.first else 0.0) - self.offset
        sleep_until(moment)
        return float(moment)


def _compare(world: World) -> tuple[float, float]:
    """(offset to rank 0, half the round trip) of one exchange."""
    there, before = np.zeros(1), time.perf_counter()
    world.comm.Send(np.array([before]), 0)
    world.comm.Recv(there, 0)
    after = time.perf_counter()
    return float(there[0]) - (before + after) / 2, (after - before) / 2


def sleep_until(moment: float) -> None:
    """Sleep until a moment of the local clock."""
    while (left := moment - time.perf_counter()) > 0:
        time.sleep(left)
