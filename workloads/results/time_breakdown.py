"""Where a step's time goes: each rank's clock is attributed, second by second, to what the rank was doing or waiting for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schedule.operation import CATEGORIES, PHASES

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Done:
    """An operation that has ended: its category and phase, and when each rank began and ended it (arrays over the mesh)."""

    category: str
    phase: str
    begin: Array
    end: Array


class Exposure:
    """``seconds[phase][category]``, as means over ranks; together they are the ranks' mean clock.

    Time on the compute stream counts for its operation. A gap on it counts for what was under way on other streams that it waited
    for, as that operation's category; while nothing of that was under way, because slower ranks had not come yet, it counts
    as ``imbalance``. Communication under compute is not exposed and counts nothing. A stage of a pipeline that ended ``late``
    seconds before the last one has these still to wait: they count as the pipeline's bubble wherever it meets the others again.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {phase: dict.fromkeys(CATEGORIES, 0.0) for phase in PHASES}
        self.late: Array | None = None

    def spend(self, category: str, phase: str, seconds: Array) -> None:
        """Attribute each rank's seconds (an array that broadcasts over the mesh, so that its mean is the ranks')."""
        self.seconds[phase][category] += _mean(seconds)

    def wait(self, clock: Array, awaited: Iterable[Done]) -> Array:
        """Attribute the gap from ``clock`` until all awaited operations have ended; returns the later clock.

        Operations count in the order in which they begin; what several have in common counts for the first.
        """
        several = list(awaited)
        if len(several) > 1:
            several.sort(key=lambda each: _mean(each.begin))
        for done in several:
            if (done.begin >= clock).all() and (
                done.end >= done.begin
            ).all():  # as what rests on all that the clock stands for
                self.spend(done.category, done.phase, done.end - done.begin)
                self.idle(done.phase, done.begin - clock)
                clock = done.end
                continue
            later = np.maximum(clock, done.end)
            worked = later - np.maximum(clock, np.minimum(done.begin, later))
            self.spend(done.category, done.phase, worked)
            self.idle(done.phase, later - clock - worked)
            clock = later
        return clock

    def idle(self, phase: str, seconds: Array) -> None:
        """Attribute each rank's seconds of waiting for slower ones."""
        if self.late is not None:
            bubble = np.minimum(seconds, self.late)
            self.late, seconds = self.late - bubble, seconds - bubble
            self.spend("pipeline_bubble", "backward", bubble)
        self.spend("imbalance", phase, seconds)


class RankExposure(Exposure):
    """The same by rank: ``parts[phase, category]`` are arrays that broadcast over the mesh."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[tuple[str, str], Array] = {}

    def spend(self, category: str, phase: str, seconds: Array) -> None:
        """Attribute each rank's seconds."""
        before = self.parts.get((phase, category))
        self.parts[phase, category] = seconds if before is None else before + seconds


def _mean(values: Array) -> float:
    """The mean over ranks; the usual single value without a detour."""
    return float(values.item() if values.size == 1 else values.mean())
