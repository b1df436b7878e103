"""One step of one rank: what each of its streams did, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .sides import Side, place


class Bar(NamedTuple):
    """Something that a stream did, in seconds from the start of the step."""

    stream: str
    category: str
    phase: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """The bars of a rank in one step of ``seconds``; ``ranks`` says which, ``step`` which of the run's."""

    ranks: str
    step: int
    seconds: float
    bars: list[Bar]

    @property
    def phases(self) -> dict[str, float]:
        """When each phase begins."""
        found: dict[str, float] = {}
        for bar in self.bars:
            found[bar.phase] = min(bar.start, found.get(bar.phase, bar.start))
        return found

    def merged(self, gap: float) -> list[Bar]:
        """The bars, those of a stream and category in one phase joined where less than ``gap`` seconds lie between them."""
        found: list[Bar] = []
        latest: dict[str, int] = {}
        for bar in sorted(self.bars, key=lambda each: each.start):
            before = found[latest[bar.stream]] if bar.stream in latest else None
            if before and before[:3] == bar[:3] and bar.start - before.end < gap:
                found[latest[bar.stream]] = before._replace(end=max(before.end, bar.end))
            else:
                latest[bar.stream] = len(found)
                found.append(bar)
        return found


def timeline(side: Side, name: str) -> Timeline:
    """What a class of ranks did in the step whose length is the median of all."""
    observed = side.classes[name]
    label = f"{name} ranks alike" if observed.ranks > 1 else f"{name} ({place(observed.coordinate)})"
    seconds = side.totals.each_step_seconds
    step = int(np.argsort(seconds, kind="stable")[(len(seconds) - 1) // 2])
    bars = [
        Bar(row.stream, row.category, row.phase, row.start, row.end)
        for row in side.run.trace
        if row.ranks == name and row.step == step
    ]
    return Timeline(label, step, seconds[step], bars)
