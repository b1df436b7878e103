"""How steps began: by how much ranks were late, which steps do not count for it, and how sure the median of the others is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from typing import Any

import numpy as np

from .observation import Times

APART, APART_LEAST = 0.02, 3e-4
"""Share of a step, and seconds, by which ranks may begin after each other; a step that began worse is executed again."""

SURE = 0.95
"""How likely the median lies in the interval that is told."""


class Starts:
    """The starts of a run's steps, on the rank that keeps the books."""

    def __init__(self) -> None:
        self.apart: list[float] = []
        self.rejected = self.kept_late = 0
        self._latest = 0.0

    def from_first(self, ranks: Sequence[tuple[Times, float]]) -> list[Times]:
        """The times of all ranks from when the first of them began."""
        late = [each for _, each in ranks]
        first, self._latest = min(late), max(late) - min(late)
        return [Times(times.begin - first, times.end - first, times.nbytes) for times, _ in ranks]

    def late(self, seconds: float) -> bool:
        """Whether the step's ranks began too far apart."""
        late = self._latest > max(APART_LEAST, APART * seconds)
        self.rejected += late
        return late

    def take(self, late: bool) -> None:
        """The step counts, late or not."""
        self.apart.append(self._latest)
        self.rejected -= late
        self.kept_late += late

    def plain(self, seconds: Sequence[float]) -> dict[str, Any]:
        """As plain data, with the median of the steps' ``seconds`` and its interval."""
        return {
            "step_median_seconds": float(np.median(seconds)),
            "step_median_interval_seconds": median_interval(seconds),
            "starts_apart_seconds": self.apart,
            "steps_rejected": self.rejected,
        }

    def warnings(self) -> Iterator[str]:
        """What is doubtful about the steps that count."""
        if self.kept_late:
            yield (
                f"in {self.kept_late} of {len(self.apart)} steps ranks began up to {1e3 * max(self.apart):.2g} ms after each"
                " other, and their times hold that"
            )


def median_interval(values: Sequence[float], sure: float = SURE) -> list[float] | None:
    """The order statistics between which the median of what ``values`` are drawn from lies, as likely as ``sure``.

    Whatever the distribution: values lie below its median as often as coins fall on one side. None where there are too few.
    """
    ordered, count = sorted(values), len(values)
    outside, cut = 0.0, 0
    while 2 * (outside + comb(count, cut) / 2**count) <= 1 - sure:
        outside += comb(count, cut) / 2**count
        cut += 1
    return [float(ordered[cut - 1]), float(ordered[count - cut])] if cut else None
