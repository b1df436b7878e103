"""Samples: begun together on all ranks, taken in turn from many points, and thrown away where others disturbed them."""

from __future__ import annotations

import gc
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.cores import cores
from ..job.clock import Clock
from ..job.host import TICK, Moment
from ..job.world import World
from .points import BenchPoint

Array = NDArray[np.float64]
Action = Callable[[int], None]
"""Does what a point is about so many times; idle ranks have none."""

LEAST = 5
"""Clean samples below which a point takes all that it has, and says so."""

FEW = 3
"""Samples of such a point that count."""

TARGET, TARGET_SHARED = 2e-3, 2e-2
"""Seconds that a sample lasts at least, by repeating what is short: on cores of their own, and where ranks share them.

Short samples find gaps between what others do on these cores; where ranks share cores, each has to have its turns.
"""

MOST_REPEATS, GOES = 2000, 4

FOREIGN = 0.1
"""Share of one core that others may take of a sample's time."""

SWITCHES = 100.0
"""Involuntary switches a second that every system's own housekeeping makes; one is always allowed."""

APART = 0.2
"""Share of a sample by which its ranks may begin after each other."""

GROSS, TIMES = 5.0, 1.5
"""A sample is a gross outlier so many deviations (scaled median deviation) above the median, and so many times that long."""


IDLE = 1e-3
"""Seconds between the looks of an idle rank at whether the others are through."""

REASONS = ("foreign", "switched", "apart", "outlier")
"""Why samples are rejected: other processes' CPU time, involuntary switches, ranks that began apart, gross outliers."""


@dataclass(frozen=True)
class SampleSeries:
    """The samples of a point: seconds of one run each, and why a sample was rejected (or nothing)."""

    point: BenchPoint
    repeats: int
    seconds: tuple[float, ...]
    reasons: tuple[str, ...]
    date: str = ""

    @cached_property
    def clean(self) -> bool:
        """Whether there are enough samples that nothing disturbed."""
        return self.reasons.count("") >= min(LEAST, len(self.reasons))

    @cached_property
    def used(self) -> Array:
        """The samples that count: those that nothing disturbed; where there are too few of them, the fastest :data:`FEW`.

        What others do only makes samples longer. Ranks that began apart make them shorter, as part of the work is then done
        before the last one begins: these count where there are no others.
        """
        pairs = list(zip(self.seconds, self.reasons, strict=True))
        if self.clean:
            return np.array([each for each, why in pairs if not why])
        together = [each for each, why in pairs if why != "apart"]
        return np.sort(together or self.seconds)[:FEW]

    @cached_property
    def median(self) -> float:
        """Seconds of one run."""
        return float(np.median(self.used))

    @property
    def quartile(self) -> float:
        """The 25th percentile."""
        return float(np.percentile(self.used, 25))

    @property
    def least(self) -> float:
        """The shortest sample."""
        return float(self.used.min())

    @property
    def spread(self) -> float:
        """The 90th percentile over the median."""
        return float(np.percentile(self.used, 90)) / self.median if self.median else 1.0

    @property
    def rejected(self) -> dict[str, int]:
        """How many samples were rejected for each reason."""
        found = Counter(self.reasons)
        return {reason: found[reason] for reason in REASONS if found[reason]}

    def plain(self) -> dict[str, Any]:
        """As plain data, with the raw samples."""
        return {
            **vars(self.point),
            "median_seconds": self.median,
            "quartile_seconds": self.quartile,
            "least_seconds": self.least,
            "spread": self.spread,
            "clean": self.clean,
            "rejected": self.rejected,
            "repeats": self.repeats,
            "date": self.date,
            "seconds": list(self.seconds),
            "reasons": list(self.reasons),
        }


def _share_cores(world: World) -> bool:
    """Whether the ranks under some kernel are more than the cores that they may run on, all together; a collective call."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(cores())
    found: dict[str, set[int]] = {}
    for kernel, its in zip(world.kernels, world.comm.allgather(tuple(allowed)), strict=True):
        found.setdefault(kernel, set()).update(its)
    return any(world.kernels.count(kernel) > len(union) for kernel, union in found.items())


def judged(
    point: BenchPoint, repeats: int, seconds: Sequence[float], reasons: Sequence[str], date: str = ""
) -> SampleSeries:
    """The series of a point; gross outliers among the samples that nothing else disturbed are marked."""
    values, marked = np.array(seconds), list(reasons)
    free = values[[not reason for reason in marked]] if "" in marked else values
    middle = float(np.median(free))
    deviation = 1.4826 * float(np.median(np.abs(free - middle)))
    gross = (values > middle + GROSS * deviation) & (values > TIMES * middle)
    marked = [reason or ("outlier" if far else "") for reason, far in zip(marked, gross, strict=True)]
    return SampleSeries(point, repeats, tuple(map(float, seconds)), tuple(marked), date)


class Sampler:
    """Takes samples on all ranks of a job; methods are collective calls, and results are rank 0's."""

    def __init__(self, world: World, longest: float, patience: float) -> None:
        """Sizes are tried up to runs of ``longest`` seconds; clean samples are waited for ``patience`` seconds a batch."""
        self.world, self.clock, self.longest, self.patience = world, Clock.of(world), longest, patience
        kernels = world.kernels
        self.kernels = np.unique(kernels, return_inverse=True)[1]
        self.shared = _share_cores(world)
        self.target = TARGET_SHARED if self.shared else TARGET
        self.foreign = 0.0  # CPU seconds that others took,
        self.passed = 0.0  # in so many seconds of samples with their starts

    def batch(self, points: Sequence[BenchPoint], actions: Sequence[Action | None], wanted: int) -> list[SampleSeries]:
        """Measure points until each has ``wanted`` clean samples, or twice as many of any kind; as many where it takes too long.

        Samples of the points are taken in turn, in an order that is shuffled anew each time. Of a series, points after one
        that takes longer than ``longest`` are left out.
        """
        kept: list[list[tuple[float, str]]] = [[] for _ in points]
        order, collecting = random.Random(len(points)), gc.isenabled()
        gc.disable()  # a collection in the middle of a sample would be taken for its own time
        try:
            until, repeats = time.monotonic() + self.patience, self._warm_up(points, actions)
            left = [number for number, count in enumerate(repeats) if count]
            while left:
                self.clock.follow(self.world)
                for number in order.sample(left, len(left)):
                    kept[number].append(self._sample(actions[number], repeats[number]))
                if self.world.first:
                    for number in left:
                        repeats[number] = self._longer(repeats[number], kept[number])
                    most = 2 * wanted if time.monotonic() < until else wanted
                    left = [number for number in left if not _enough(kept[number], wanted, most)]
                left, repeats = self.world.comm.bcast((left, repeats))
        finally:
            if collecting:
                gc.enable()
        if not self.world.first:
            return []
        date = time.strftime("%Y-%m-%d %H:%M")
        return [
            judged(point, count, [seconds for seconds, _ in samples], [why for _, why in samples], date)
            for point, count, samples in zip(points, repeats, kept, strict=True)
            if samples
        ]

    def _warm_up(self, points: Sequence[BenchPoint], actions: Sequence[Action | None]) -> list[int]:
        """How often each point is to be repeated within a sample, 0 for those that are left out.

        The first run is dropped: it makes connections and touches memory. Runs one after another are faster than one alone,
        so that the number of repeats is found in several goes.
        """
        repeats, ended = [0] * len(points), set[str]()
        for number, point in enumerate(points):
            if point.series in ended:
                continue
            self._sample(actions[number], 1)
            count = 1
            for _ in range(GOES):
                seconds = self.world.comm.bcast(self._sample(actions[number], count)[0])
                if count * seconds >= self.target or count == MOST_REPEATS:
                    break
                count = min(MOST_REPEATS, ceil(1.2 * self.target / max(seconds, 1e-7)))
            repeats[number] = count
            if seconds > self.longest:  # it, or what disturbed it: another sample tells
                again = self.world.comm.bcast(self._sample(actions[number], count)[0])
                if again > self.longest:
                    ended.add(point.series)
        return repeats

    def _longer(self, repeats: int, samples: list[tuple[float, str]]) -> int:
        """Repeats that make samples long enough.

        Where others disturbed the first goes, these were too few, and cold starts count too much: then the samples are dropped.
        """
        fastest = min(seconds for seconds, _ in samples)
        if repeats == MOST_REPEATS or repeats * fastest > self.target / 2:
            return repeats
        samples.clear()
        return min(MOST_REPEATS, ceil(1.2 * self.target / fastest))

    def _sample(self, action: Action | None, repeats: int) -> tuple[float, str]:
        """One sample: seconds of one run from when the last rank began to when the last one ended, and what disturbed it."""
        before = Moment.now()
        self.clock.start_together(self.world)
        if action and repeats > 1:
            action(1)  # ranks wake up one after another; this brings them together
        begin = Moment.now()
        if action:
            action(repeats)
        end = Moment.now()
        self._wait_for_all(idle=action is None)
        nothing = np.nan if action is None else self.clock.offset_at(begin.time)
        mine = np.array(
            [
                begin.time + nothing,
                end.time + nothing,
                0.0 if action is None else end.switches - begin.switches,
                end.own - before.own,
                end.busy - before.busy,
                end.time - before.time,
            ]
        )
        every = np.empty((self.world.size, len(mine))) if self.world.first else None
        self.world.comm.Gather(mine, every)
        return (0.0, "") if every is None else self._judge(every, repeats)

    def _wait_for_all(self, idle: bool) -> None:
        """Wait until all ranks are through; idle ones sleep meanwhile, since who polls takes others' cores."""
        request = self.world.comm.Ibarrier()
        while idle and not request.Test():
            time.sleep(IDLE)
        if not idle:
            request.Wait()

    def _judge(self, every: Array, repeats: int) -> tuple[float, str]:
        """Seconds and reason of a sample, from what all ranks have noted."""
        begin, end, switches, own, busy, window = every.T
        seconds = max(float(np.nanmax(end) - np.nanmax(begin)), 1e-9)
        apart, foreign = float(np.nanmax(begin) - np.nanmin(begin)), 0.0
        for number in range(int(self.kernels.max()) + 1):
            here = self.kernels == number
            foreign = max(foreign, float(busy[here].max() - own[here].sum()))
        self.foreign, self.passed = self.foreign + foreign, self.passed + float(window.max())
        switched = 0.0 if self.shared else float(switches.max())
        return seconds / repeats, reason(seconds, apart, foreign, switched)


def reason(seconds: float, apart: float, foreign: float, switches: float) -> str:
    """Why a sample of ``seconds`` is to be rejected, or nothing.

    ``apart`` seconds lay between its ranks' starts, others took ``foreign`` CPU seconds meanwhile (counted in ticks, of
    which two say nothing), and the rank that was switched from its core most often was so ``switches`` times.
    """
    if foreign > 2 * TICK + FOREIGN * seconds:
        return "foreign"
    if switches > 1 + SWITCHES * seconds:
        return "switched"
    return "apart" if apart > APART * seconds else ""


def _enough(samples: Sequence[tuple[float, str]], wanted: int, most: int) -> bool:
    clean = sum(not why for _, why in samples)
    return clean >= wanted or len(samples) >= most
