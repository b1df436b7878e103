"""Where the time of a campaign goes, and what one seed of it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ENTRIES = {
    "productive": "steps that were kept",
    "recomputed": "steps that a fault took back, as long as they took at first",
    "checkpoint": "steps that waited for a checkpoint, and those that a fault cut short",
    "io": "steps that waited for data, and checkpoints that were loaded",
    "detection": "from a fault until it was noticed",
    "restart": "scheduling and initialisation",
    "repair_wait": "waiting for nodes, where no spare was left",
    "degraded": "what steps took longer beside slow nodes or links, or with fewer ranks",
}
"""What the seconds of a campaign went to: together they are its wall clock."""


@dataclass(frozen=True)
class Outcome:
    """What a campaign of one seed came to: wall clock and ledger in seconds, interruptions, and these by component.

    ``finished`` is False where the work was not done when the faults that were looked at ended.
    """

    seconds: float
    ledger: Mapping[str, float]
    interruptions: int
    by_component: tuple[int, ...] = ()
    finished: bool = True
    spans: tuple[tuple[float, float, str], ...] = field(default=(), repr=False)
    """(start, end, entry) one after the other, where they were asked for."""

    @property
    def goodput(self) -> float:
        """Productive over wall clock: the effective training time ratio."""
        return self.ledger["productive"] / self.seconds if self.seconds else 0.0
