"""When each slot of a pipeline begins and ends, given how long stages work and transfers take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..workloads.pipelines import Kind, Order, Slot, Step, sequence

Seconds = float | NDArray[np.float64]
"""Of the ranks of a stage: one number where they are alike, else an array of any shape that broadcasts with the others."""


class Parts(NamedTuple):
    """Where a stage's seconds went: its work, waiting while its input was under way, and waiting for it to be made."""

    busy: Seconds
    transfer: Seconds
    bubble: Seconds

    @property
    def seconds(self) -> Seconds:
        """All of them."""
        return self.busy + self.transfer + self.bubble


@dataclass(frozen=True)
class Timing:
    """Clocks of a pipeline's slots, ``[stage][place in its order]``; all stages begin at 0.

    ``under_way`` is the part of the wait before a slot in which its input was being sent; the rest of the wait is bubble.
    """

    orders: Sequence[Order]
    begin: list[list[Seconds]]
    end: list[list[Seconds]]
    under_way: list[list[Seconds]]

    @property
    def seconds(self) -> float:
        """Until the last rank of the last stage is through."""
        return max((float(np.max(end[-1])) for end in self.end if end), default=0.0)

    def parts(self, stage: int, first: int = 0) -> Parts:
        """The seconds of a stage from the end of the slot before place ``first`` (or from 0) to its last one's end."""
        begin, end = self.begin[stage][first:], self.end[stage][first:]
        start: Seconds = self.end[stage][first - 1] if first else 0.0
        if not end:
            return Parts(0.0, 0.0, 0.0)
        busy: Seconds = sum((after - before for before, after in zip(begin, end, strict=True)), 0.0)
        transfer: Seconds = sum(self.under_way[stage][first:], 0.0)
        return Parts(busy, transfer, end[-1] - start - busy - transfer)

    def waits(self, stage: int, first: int = 0) -> dict[Kind, tuple[Seconds, Seconds]]:
        """(transfer, bubble) before the slots of each kind, from place ``first`` on."""
        found: dict[Kind, tuple[Seconds, Seconds]] = {}
        free: Seconds = self.end[stage][first - 1] if first else 0.0
        clocks = zip(self.orders[stage], self.begin[stage], self.end[stage], self.under_way[stage], strict=True)
        for slot, begin, end, under_way in islice(clocks, first, None):
            transfer, bubble = found.get(slot.kind, (0.0, 0.0))
            found[slot.kind] = transfer + under_way, bubble + (begin - free - under_way)
            free = end
        return found


def play(
    orders: Sequence[Order],
    duration: Callable[[int, Slot], Seconds],
    transfer: Callable[[int, int, Kind], Seconds],
) -> Timing:
    """Play the orders of all stages: a slot begins when its stage is free and its input has come.

    ``transfer(from, to, kind)`` are the seconds that an activation (kind F) or its gradient (B) needs between two stages; it
    does not keep the sender from working on. Raises :class:`InputError` where stages wait for each other.
    """
    work = [[duration(stage, slot) for slot in order] for stage, order in enumerate(orders)]
    steps = sequence(orders)
    asked = {(sender, stage, orders[stage][place][0]) for stage, place, source, sender in steps if source >= 0}
    between = {key: transfer(*key) if key[0] != key[1] else 0.0 for key in sorted(asked)}
    amounts = (each for some in (between.values(), *work) for each in some)
    later, sooner = (np.maximum, np.minimum) if any(isinstance(each, np.ndarray) for each in amounts) else (max, min)
    return _played(orders, steps, work, between, later, sooner)


def _played(
    orders: Sequence[Order],
    steps: Sequence[Step],
    work: list[list[Seconds]],
    between: dict[tuple[int, int, Kind], Seconds],
    later: Callable[[Any, Any], Any],
    sooner: Callable[[Any, Any], Any],
) -> Timing:
    """One pass over slots that come after what they need. Plain floats go through Python's own ``max``, which is faster."""
    begins, ends, waits = ([[] for _ in orders] for _ in range(3))  # type: list[list[Any]], list[list[Any]], list[list[Any]]
    free: list[Any] = [0.0] * len(orders)
    done: list[Any] = []
    for stage, place, source, sender in steps:
        begin, under_way = free[stage], 0.0
        if source >= 0:
            sending = between[sender, stage, orders[stage][place][0]]
            begin = later(free[stage], done[source] + sending)
            under_way = sooner(begin - free[stage], sending)
        end = free[stage] = begin + work[stage][place]
        begins[stage].append(begin)
        ends[stage].append(end)
        waits[stage].append(under_way)
        done.append(end)
    return Timing(orders, begins, ends, waits)
