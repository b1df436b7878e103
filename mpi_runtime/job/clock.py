"""One clock for all ranks: how each rank's differs from rank 0's and drifts, and a start at the same moment."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from .world import World

EXCHANGES = 20
"""Ping-pongs with each rank; the fastest one tells most."""

LEAD = 2e-3
"""Seconds from the agreement on a start to the start: longer than a message takes."""

SPIN = 3e-4
"""Seconds before a start in which a rank with a core of its own does not sleep: sleeps end late by about so much."""

EVERY = 1.0
"""Seconds after which clocks of several kernels are compared again: quartz differs by up to 100 us a second."""

RECENT = 5
"""Comparisons that the drift is told from."""


@dataclass(frozen=True)
class Reading:
    """A comparison with rank 0's clock: at a ``moment`` of the local one, known to within ``uncertainty`` seconds."""

    moment: float
    offset: float
    uncertainty: float


@dataclass
class Clock:
    """What a rank knows of rank 0's clock; ranks under one kernel have one clock."""

    readings: list[Reading] = field(default_factory=list)
    surprise: float = 0.0  # seconds by which a comparison was off what those before it foretold, at most

    @classmethod
    def of(cls, world: World) -> Clock:
        """The clock of this rank; a collective call."""
        clock = cls()
        clock.follow(world, at_once=True)
        return clock

    def follow(self, world: World, at_once: bool = False) -> None:
        """Compare clocks over messages, rank after rank (Cristian 1989), where they are several and it is time; collective."""
        if len(set(world.kernels)) == 1:
            return
        due = at_once or not self.readings or time.perf_counter() - self.readings[-1].moment >= EVERY
        if not world.comm.bcast(due):
            return
        here, stamp = world.comm, np.zeros(1)
        found = Reading(time.perf_counter(), 0.0, 0.0)
        for other in range(1, world.size):
            if world.kernels[other] == world.kernels[0]:
                continue
            if world.first:
                for _ in range(EXCHANGES):
                    here.Recv(stamp, other)
                    here.Send(np.array([time.perf_counter()]), other)
            elif world.rank == other:
                found = min((_compare(world) for _ in range(EXCHANGES)), key=lambda each: each.uncertainty)
        self.add(found)

    def add(self, reading: Reading) -> None:
        """Take a comparison into account."""
        if len(self.readings) > 1:
            self.surprise = max(self.surprise, abs(reading.offset - self.offset_at(reading.moment)))
        self.readings.append(reading)

    @property
    def rate(self) -> float:
        """Seconds that rank 0's clock gains on this one in a second, from the latest comparisons; 0 where they are too near."""
        recent = self.readings[-RECENT:]
        if len(recent) < 2 or recent[-1].moment - recent[0].moment < EVERY:
            return 0.0
        moments = np.array([each.moment for each in recent]) - recent[0].moment
        weights = [1.0 / max(each.uncertainty, 1e-9) for each in recent]
        return float(np.polyfit(moments, [each.offset for each in recent], 1, w=weights)[0])

    def offset_at(self, moment: float) -> float:
        """Rank 0's clock less this one, at a moment of this one."""
        if not self.readings:
            return 0.0
        last = self.readings[-1]
        return last.offset + self.rate * (moment - last.moment)

    @property
    def uncertainty(self) -> float:
        """Seconds to within which it is known: half the fastest round trip, and what drift was not foreseen."""
        return max((each.uncertainty for each in self.readings), default=0.0) + self.surprise

    def start_together(self, world: World) -> Start:
        """Wait for a moment on which all ranks agree; returns it, and when this rank was awake."""
        world.comm.Barrier()
        now = time.perf_counter()
        agreed = world.comm.bcast(now + self.offset_at(now) + LEAD if world.first else 0.0)
        moment = float(agreed) - self.offset_at(now)
        sleep_until(moment, SPIN if world.alone else 0.0)
        return Start(moment, max(0.0, time.perf_counter() - moment))


@dataclass(frozen=True)
class Start:
    """A start together: its moment on the local clock, and by how many seconds this rank began later."""

    moment: float
    late: float


def _compare(world: World) -> Reading:
    """One exchange with rank 0."""
    there, before = np.zeros(1), time.perf_counter()
    world.comm.Send(np.array([before]), 0)
    world.comm.Recv(there, 0)
    after = time.perf_counter()
    middle = (before + after) / 2
    return Reading(middle, float(there[0]) - middle, (after - before) / 2)


def sleep_until(moment: float, spin: float = 0.0) -> None:
    """Sleep until a moment of the local clock, the last ``spin`` seconds awake."""
    while (left := moment - time.perf_counter()) > 0:
        if left > spin:
            time.sleep(left - spin)
