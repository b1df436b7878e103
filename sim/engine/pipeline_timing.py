"""When each slot of a pipeline begins and ends, given how long stages work and transfers take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.pipelines import Kind, Order, Pipeline, Slot, Step, sequence, streamed

Seconds = float | NDArray[np.float64]
"""Of the ranks of a stage: one number where they are alike, else an array of any shape that broadcasts with the others."""


MOST_SLOTS = 500_000
"""Slots that are played at most to find a steady state: about a second."""


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

    ``made`` is when a slot's result was there to be sent, ``under_way`` the part of the wait before a slot in which its input
    was being sent; the rest of the wait is bubble.
    """

    orders: Sequence[Order]
    begin: list[list[Seconds]]
    made: list[list[Seconds]]
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
    making: Callable[[int, Slot], Seconds] | None = None,
) -> Timing:
    """Play the orders of all stages: a slot begins when its stage is free and its input has come.

    ``transfer(from, to, kind)`` are the seconds that an activation (kind F) or its gradient (B) needs between two stages; it
    does not keep the sender from working on. ``making`` are those of a slot after which its result can be sent, by default
    all of its ``duration``. Raises :class:`InputError` where stages wait for each other.
    """
    work = [[duration(stage, slot) for slot in order] for stage, order in enumerate(orders)]
    parts = [[making(stage, slot) for slot in order] for stage, order in enumerate(orders)] if making else work
    steps = sequence(orders)
    asked = {(sender, stage, orders[stage][place][0]) for stage, place, source, sender in steps if source >= 0}
    between = {key: transfer(*key) if key[0] != key[1] else 0.0 for key in sorted(asked)}
    amounts = (each for some in (between.values(), *work, *parts) for each in some)
    later, sooner = (np.maximum, np.minimum) if any(isinstance(each, np.ndarray) for each in amounts) else (max, min)
    return _played(orders, steps, work, parts, between, later, sooner)


def play_endless(
    pipeline: Pipeline,
    stages: int,
    micro_batches: int,
    duration: Callable[[int, Slot], Seconds],
    transfer: Callable[[int, int, Kind], Seconds],
    making: Callable[[int, Slot], Seconds] | None = None,
) -> tuple[Timing, list[int]]:
    """Play an asynchronous pipeline until all stages take equally long for a step, and for the one before.

    Returns the clocks, and the place on each stage at which that last step begins.

    How long that takes depends on how much slower the slowest way through the pipeline is than others: at :data:`MOST_SLOTS` it
    is left at that. Micro-batches count on through all steps.
    """
    steps = 2 + 4 * stages // micro_batches
    while True:
        stream = streamed(pipeline, stages, micro_batches, steps)
        timing = play(stream.orders, duration, transfer, making)
        both = [timing.parts(stage, start).seconds for stage, start in enumerate(stream.last_but_one)]
        paces = [timing.parts(stage, start).seconds for stage, start in enumerate(stream.last)]
        settled = all(np.allclose(each, paces[0], rtol=1e-9, atol=0) for each in paces) and all(
            np.allclose(two, 2 * each, rtol=1e-9, atol=0) for two, each in zip(both, paces, strict=True)
        )
        if settled or 2 * sum(map(len, stream.orders)) > MOST_SLOTS:
            return timing, stream.last
        steps *= 2


def _played(
    orders: Sequence[Order],
    steps: Sequence[Step],
    work: list[list[Seconds]],
    parts: list[list[Seconds]],
    between: dict[tuple[int, int, Kind], Seconds],
    later: Callable[[Any, Any], Any],
    sooner: Callable[[Any, Any], Any],
) -> Timing:
    """One pass over slots that come after what they need. Plain floats go through Python's own ``max``, which is faster."""
    begins: list[list[Any]] = [[] for _ in orders]
    mades: list[list[Any]] = [[] for _ in orders]
    ends: list[list[Any]] = [[] for _ in orders]
    waits: list[list[Any]] = [[] for _ in orders]
    free: list[Any] = [0.0] * len(orders)
    done: list[Any] = []
    for stage, place, source, sender in steps:
        begin, under_way = free[stage], 0.0
        if source >= 0:
            sending = between[sender, stage, orders[stage][place][0]]
            begin = later(free[stage], done[source] + sending)
            under_way = sooner(begin - free[stage], sending)
        made = begin + parts[stage][place]
        end = free[stage] = begin + work[stage][place]
        begins[stage].append(begin)
        mades[stage].append(made)
        ends[stage].append(end)
        waits[stage].append(under_way)
        done.append(made)
    return Timing(orders, begins, mades, ends, waits)
