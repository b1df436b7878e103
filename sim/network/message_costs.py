"""What a message costs beside its links: from a machine's measured table, or from latencies and the overhead of a message."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...hardware.machine import Machine
from ...hardware.message_costs import LEVELS, WAYS, Level, MessageCost, Way
from .links import Array, Index


class MessageCosts:
    """The costs of messages between nodes of a machine; ``measured`` says whether it has a table of them.

    Of a level that the table does not have, messages cost what those of the next higher one do, else of the next lower one;
    of a way that it does not have, what those of the other way do. Inside nodes only the table's own entries count.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.domain = machine, machine.supernode
        self.measured, self.burst = bool(machine.calibration.messages), machine.calibration.link_burst or 0.0
        self.known = [[_entries(machine.calibration.messages, level, way) for way in WAYS] for level in LEVELS]

    @classmethod
    def of(cls, machine: Machine) -> MessageCosts:
        """Those of a machine that is asked often; the latest few are kept."""
        return _of(_Same(machine))

    def levels(self, source: Index, target: Index) -> Index:
        """How far messages between nodes go, as places in :data:`LEVELS`."""
        found: Index = (source != target) * 1 + (source // self.domain != target // self.domain) * 1
        return found

    def start(self, source: Index, target: Index, nbytes: Array, way: Index | int) -> tuple[Array, Array]:
        """(seconds before the first byte, bytes per second at most) of messages of ``nbytes`` from nodes to nodes.

        ``way`` is a place in :data:`~athanor.hardware.message_costs.WAYS`, one for all or one for each.
        """
        calibration = self.machine.calibration
        wait = self.machine.fabric.latencies(source, target) + calibration.message_overhead
        rate = np.full(len(wait), np.inf)
        if not self.measured:
            return wait, rate
        level, way = self.levels(source, target), np.broadcast_to(way, wait.shape)
        for number in np.unique(level).tolist():
            for side in np.unique(way).tolist():
                entries = self.known[number][side]
                here = np.flatnonzero((level == number) & (way == side))
                if entries and len(here):
                    place = np.searchsorted([each.least for each in entries], nbytes[here], side="right") - 1
                    wait[here] = np.array([each.start for each in entries])[place]
                    rate[here] = np.array([each.rate or np.inf for each in entries])[place]
        return wait, rate

    def hidden(self, start: Array | float) -> Array | float:
        """Seconds of a message's bytes that pass at once, since links have been idle while it started."""
        return np.minimum(self.burst, start)


class _Same:
    """A machine as a key: the very object."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.machine is other.machine

    def __hash__(self) -> int:
        return id(self.machine)


@lru_cache(maxsize=4)
def _of(key: _Same) -> MessageCosts:
    return MessageCosts(key.machine)


def _entries(table: Sequence[MessageCost], level: Level, way: Way) -> list[MessageCost]:
    """The entries that hold for a level and a way, rising in size; none where the table says nothing of it."""
    at = LEVELS.index(level)
    others = [] if level == "node" else [*LEVELS[at + 1 :], *reversed(LEVELS[1:at])]
    for which in (way, *(each for each in WAYS[:2] if each != way)):
        for asked in (level, *others):
            if found := [each for each in table if (each.level, each.way) == (asked, which)]:
                return found
    return []
