"""What a job is to its faults: the work, what a checkpoint and a restart take, and how fast it runs with what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CheckpointLevel:
    """A level of checkpoints: every how many of them are written there as well, what that one takes, and loading from there.

    ``name`` is what it is, and ``mtbf`` the mean time between faults after which the job needs just this level.
    """

    name: str
    every: int
    save: float
    load: float
    mtbf: float = inf


@dataclass(frozen=True)
class Job:
    """A job as faults see it; seconds.

    ``work`` is what its steps take without faults, ``interval`` the work between checkpoints. A checkpoint stops work for
    ``save``, and counts ``commit`` later (asynchronous ones; less than interval and save together). ``restart`` is the median of
    scheduling and initialisation, after which a checkpoint is loaded in ``load``. ``spares`` are nodes that take the place of
    lost ones. ``stall`` is the share of work that waits for data.

    ``speeds`` are how fast it runs with 0, 1, … nodes fewer than it began with, where it can (elastic); a job that cannot has
    only the first. ``slowed`` has, for a component that degrades, the speed beside it.
    """

    work: float
    interval: float
    save: float
    restart: float
    load: float
    commit: float = 0.0
    spares: float = inf
    stall: float = 0.0
    speeds: tuple[float, ...] = (1.0,)
    slowed: Mapping[int, float] = field(default_factory=dict)
    planned: frozenset[int] = frozenset()
    """Components whose faults are announced."""
    levels: tuple[CheckpointLevel, ...] = ()
    """Levels of checkpoints, the quickest first: each counts a multiple of the one before, which it stands for as well."""
    survives: tuple[int, ...] = ()
    """Of each component the first level that outlives its faults; none where there are no levels."""

    def at(self, interval: float) -> Job:
        """The same with another interval."""
        return replace(self, interval=interval)

    @property
    def cycle(self) -> float:
        """From checkpoint to checkpoint."""
        return self.interval + self.save

    def load_after(self, kind: NDArray[np.int64]) -> Array:
        """Seconds of loading after faults of these components."""
        if not self.levels:
            return np.full(len(kind), self.load)
        loads = np.array([self.levels[each].load for each in self.survives])
        return loads[kind]

    def level_of(self, number: int) -> CheckpointLevel:
        """The level of checkpoint 1, 2, …: the last one that is due."""
        return next(each for each in reversed(self.levels) if number % each.every == 0)

    def speed(self, missing: Array) -> Array:
        """How fast it runs with so many nodes missing after all spares are used; 0 where it cannot."""
        known = np.asarray(self.speeds)
        return np.where(missing < len(known), known[np.clip(missing, 0, len(known) - 1).astype(np.int64)], 0.0)


@dataclass(frozen=True)
class Progress:
    """Work that is done by a time: a clock that runs more slowly, or stands, where the job does.

    It stands at ``done[i]`` at ``time[i]``, and is linear between.
    """

    time: Array
    done: Array

    @classmethod
    def of(cls, moments: Sequence[Array], speeds: Sequence[Array], until: float) -> Progress:
        """From several reasons to be slow: ``speeds[i][k]`` holds from ``moments[i][k]`` on, and 1 before; they multiply."""
        times = np.unique(np.concatenate([np.zeros(1), *moments, np.full(1, until)]))
        speed = np.ones(len(times))
        for at, values in zip(moments, speeds, strict=True):
            place = np.searchsorted(at, times, side="right") - 1
            speed *= np.where(place >= 0, values[np.maximum(place, 0)], 1.0) if len(at) else 1.0
        done = np.concatenate([np.zeros(1), np.cumsum(np.diff(times) * speed[:-1])])
        return cls(times, done)

    def at(self, time: Array) -> Array:
        """Work by a time."""
        found: Array = np.interp(time, self.time, self.done)
        return found

    def when(self, done: float) -> float:
        """The time by which so much is done."""
        return float(np.interp(done, self.done, self.time))
