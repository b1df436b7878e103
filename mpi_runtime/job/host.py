"""What else goes on on the computers of a job: time that others take, ranks that share cores, clocks that are slowed down."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...hardware.cores import cores
from .world import World

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds in which the kernel counts the time of cores."""

BUSY = 0.05
"""Share of one core above which it is said that others have taken it meanwhile."""

SLOWED = 0.8
"""Share of the fastest rank's frequency below which another's is said to be slow."""


@dataclass(frozen=True)
class Moment:
    """What has been counted so far: CPU seconds of this process and of all under its kernel, and involuntary switches."""

    time: float
    own: float
    busy: float
    switches: int

    @classmethod
    def now(cls) -> Moment:
        """Now; where the system does not count, others are taken to be idle."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter(), usage.ru_utime + usage.ru_stime, busy_seconds(), usage.ru_nivcsw)


def busy_seconds() -> float:
    """CPU seconds that all processes under this kernel have taken, and what a hypervisor has taken from it; 0 if unknown.

    Interrupts do not count: most of them carry the job's own messages, above all where one kernel emulates a cluster.
    """
    try:
        with Path("/proc/stat").open(encoding="ascii") as lines:
            user, nice, system, _, _, _, _, *stolen = map(int, lines.readline().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return TICK * (user + nice + system + sum(stolen))


def megahertz() -> float:
    """The mean frequency now of the cores that this process may run on; 0 where the system does not say."""
    here = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    found, core = [], -1
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "processor":
                core = int(value)
            elif key == "cpu MHz" and core in here:
                found.append(float(value))
    except (OSError, ValueError):
        return 0.0
    return sum(found) / len(found) if found else 0.0


@dataclass(frozen=True)
class Conditions:
    """What the hosts of a job did beside it, while it measured.

    ``foreign_cores``: cores that others kept busy, on the worst host; ``pinned``: every rank has cores that no other rank of its
    host may run on; ``megahertz``: the slowest rank's and the fastest's, 0 where unknown.
    """

    foreign_cores: float
    load_before: float
    cores: int  # of the fullest host
    ranks: int  # there
    pinned: bool
    megahertz: tuple[float, float]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "foreign_cores": self.foreign_cores,
            "ranks_per_core": self.ranks / self.cores,
            "pinned": self.pinned,
            "megahertz": list(self.megahertz),
        }

    def warnings(self, computing: bool = True) -> Iterator[str]:
        """What makes times of such a job doubtful; ranks that only sleep do not take each other's time."""
        if self.foreign_cores > BUSY:
            yield f"other processes took {self.foreign_cores:.0%} of a core meanwhile: measure on computers that are idle"
        elif self.load_before > self.cores:
            yield f"the load of a host with {self.cores} cores was {self.load_before:.1f} before the job"
        if computing and self.ranks > self.cores:
            yield f"{self.ranks} ranks share {self.cores} cores: they take each other's time (--compute sleep does not)"
        slow, fast = self.megahertz
        if 0 < slow < SLOWED * fast:
            yield f"cores of ranks ran at {slow:.0f} to {fast:.0f} MHz: some are slowed down"


class HostWatch:
    """Watches a job's hosts from when it is made until :meth:`seen`."""

    def __init__(self, world: World) -> None:
        self.world, self.before, self.load = world, Moment.now(), os.getloadavg()[0]

    def seen(self) -> Conditions:
        """What went on since; a collective call."""
        now, world = Moment.now(), self.world
        allowed = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()
        mine = (now.busy - self.before.busy, now.own - self.before.own, now.time - self.before.time)
        every = world.comm.allgather((*mine, self.load, cores(), allowed, megahertz()))
        foreign, pinned, fullest = 0.0, world.size > 1, (0.0, 1, 1)
        for kernel in set(world.kernels):
            here = [each for each, at in zip(every, world.kernels, strict=True) if at == kernel]
            busy, passed = max(each[0] for each in here), max(each[2] for each in here)
            foreign = max(foreign, (busy - sum(each[1] for each in here) - 2 * TICK) / max(passed, TICK))
            union = frozenset[int]().union(*(each[5] for each in here))
            pinned = pinned and bool(union) and len(union) == sum(len(each[5]) for each in here)
            count = len(union) or here[0][4]
            fullest = max(fullest, (len(here) / count, count, len(here)))
        clocks = [each[6] for each in every]
        load = max(each[3] for each in every)
        return Conditions(max(foreign, 0.0), load, fullest[1], fullest[2], pinned, (min(clocks), max(clocks)))
