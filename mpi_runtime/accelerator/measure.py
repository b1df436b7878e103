"""Measuring point after point within a budget of time; what is finished is kept, so that an interruption loses one point."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

from ..calibration.keep import KeptSamples
from ..calibration.points import BenchPoint
from ..calibration.samples import SampleSeries, judged
from .points import family

SAMPLES, LEAST = 15, 3
"""Samples of a point, and those below which it does not count."""

TARGET = 2e-3
"""Seconds that a sample lasts at least, by repeating what is short."""

MOST_REPEATS = 300
"""Repeats of a sample at most; a GPU takes about a thousand kernels that wait, and an operator may have several."""
MORE, TOO_LONG = 20, 4.0
"""Repeats become so many times more in one go at most; and fewer where a sample lasts so many times the target.

A run may be fast by chance, where others keep threads waiting most of the time.
"""

GOES = 4
"""How often the number of repeats is looked for: the first runs of an operator are slower than those that follow."""

GENEROUS = 4.0
"""So many even shares of what is left of the budget a point may take; samples beyond the least have to fit into one."""

TELLS = 1.0
"""Seconds between two words of progress."""

Runner = Callable[[int], tuple[float, str]]
"""Runs a point's operator so many times in a row: seconds of one run, and what disturbed them (or nothing)."""


class Unable(Exception):
    """A point that this device cannot run; the text is the reason, in two or three words."""


class Late(Exception):
    """A point that does not fit into the time that it may take."""


class Bench(Protocol):
    """Where points run."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def ready(self, point: BenchPoint) -> Runner:
        """Make a point's operands; raises :class:`Unable`."""


@dataclass
class Measured:
    """The series of the points that were measured, now or before; how many were not, by reason."""

    series: list[SampleSeries] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    resumed: int = 0


@dataclass
class _Pace:
    """What the last point of a family took: its size, seconds of a run, and seconds until its operands were there."""

    size: int
    run: float
    setup: float

    def expected(self, size: int) -> float:
        """Seconds in which a larger point of the family gets its least samples."""
        return self.setup + (LEAST + 1) * max(TARGET, self.run * max(1.0, size / self.size))


class Measurer:
    """Measures points on a bench within ``budget`` seconds, and keeps each that is finished."""

    def __init__(self, bench: Bench, kept: KeptSamples, budget: float) -> None:
        self.bench, self.kept, self.budget = bench, kept, budget
        self.paces: dict[tuple[Any, ...], _Pace] = {}
        self.longest = 0.0  # seconds of the point that took most: no first one of a family is begun with less left

    def measure(self, points: Sequence[BenchPoint], advance: Callable[[str], None] = lambda text: None) -> Measured:
        """All points in their order; those that do not fit into what is left of the budget, or that cannot run, are left out.

        What seemed too long for its share is tried again in the end, when it is known what the others have left.
        """
        found = Measured()
        known = {point.key: series for point in points if (series := self.kept.of(point, LEAST))}
        found.resumed = len(known)
        until, late = self.bench.now() + self.budget, list[BenchPoint]()
        wanted = [point for point in points if point.key not in known]
        for again, these in enumerate((wanted, late)):
            told = self.bench.now()
            for number, point in enumerate(these):
                share = max(0.0, until - self.bench.now()) / (len(these) - number)
                try:
                    series = self._point(point, share, until)
                except Late:
                    late += [] if again else [point]
                    continue
                except Unable as reason:
                    found.left_out[str(reason)] += 1
                    continue
                self.kept.keep(series)
                known[point.key] = series
                if self.bench.now() - told > TELLS:
                    told = self.bench.now()
                    advance(f"{number + 1} of {len(these)}{' left' if again else ''}: {point.kind} {point.series}")
        if lost := sum(point.key not in known for point in late):
            found.left_out["no time left"] = lost
        found.series = [known[point.key] for point in points if point.key in known]
        return found

    def _point(self, point: BenchPoint, share: float, until: float) -> SampleSeries:
        """The samples of a point: as many as fit into its share of the budget, and three at least."""
        began = self.bench.now()
        pace = self.paces.get(family(point))
        expected = pace.expected(point.size) if pace else 0.0
        if (expected or self.longest) > until - began or expected > GENEROUS * share:
            if pace:
                pace.setup /= 2  # what disturbed the one before must not keep all others out
            raise Late
        runner = self.bench.ready(point)
        runner(1)  # the first run loads kernels and touches memory
        ready = self.bench.now()
        repeats = self._repeats(runner)
        samples: list[tuple[float, str]] = []
        while len(samples) < LEAST or (len(samples) < SAMPLES and self.bench.now() < min(until, began + share)):
            samples.append(runner(repeats))
            if (lasted := repeats * samples[-1][0]) > TOO_LONG * TARGET:
                repeats = max(1, int(repeats * TARGET / lasted))
            if self.bench.now() > until and len(samples) < LEAST:
                raise Late
        series = judged(
            point,
            repeats,
            [seconds for seconds, _ in samples],
            [reason for _, reason in samples],
            time.strftime("%Y-%m-%d %H:%M"),
        )
        setup, self.longest = ready - began, max(self.longest, self.bench.now() - began)
        self.paces[family(point)] = _Pace(point.size, series.median, min(setup, pace.setup) if pace else setup)
        return series

    @staticmethod
    def _repeats(runner: Runner) -> int:
        """Repeats that make a sample long enough."""
        repeats = 1
        for _ in range(GOES):
            seconds, _ = runner(repeats)
            if repeats * seconds >= TARGET or repeats == MOST_REPEATS:
                break
            repeats = min(MOST_REPEATS, MORE * repeats, ceil(1.2 * TARGET / max(seconds, 1e-9)))
        return repeats
