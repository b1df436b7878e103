"""When each slot of a pipeline begins and ends, given how long stages work and transfers take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...workloads.pipelines import Kind, Order, Pipeline, Slot, Step, sequence, streamed
from .stage_cards import Cards, Clocks, Slowing, StageMessage

Seconds = float | NDArray[np.float64]
"""Of the ranks of a stage: one number where they are alike, else an array of any shape that broadcasts with the others."""


MOST_SLOTS = 500_000
"""Slots that are played at most to find a steady state: about a second."""

MOST_ON_CARDS = 20_000
"""The same where messages queue, event by event: there stages may take turns in a rhythm of many steps."""


class CardSharing(Protocol):
    """What hand-overs of a pipeline have to share."""

    def wire(self, sender: int, receiver: int, kind: Kind) -> tuple[Seconds, int]:
        """Seconds of a message, within those of its transfer, in which it keeps cards busy; and which way it takes."""

    def share(self, stage: int, slot: Slot, way: int, out: bool) -> Slowing:
        """How a slot's own exchanges and messages slow each other that its stage sends, or receives."""

    @property
    def burst(self) -> float:
        """Seconds of messages that pass at once through a card that was idle."""

    @property
    def crowds(self) -> object | None:
        """None where slots of different stages never slow each other."""

    def stretch(self, running: Sequence[tuple[int, Slot] | None]) -> list[float]:
        """By how much longer than alone stages take for the slots that they run at once; asked where there are crowds."""


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
    was being sent; the rest of the wait is bubble. ``came`` is when a slot's input was there, 0.0 where none came. ``slowed`` is
    by how much a slot took longer because messages shared its cards; none where nothing did.
    """

    orders: Sequence[Order]
    begin: list[list[Seconds]]
    made: list[list[Seconds]]
    end: list[list[Seconds]]
    under_way: list[list[Seconds]]
    came: list[list[Seconds]]
    slowed: list[list[Seconds]] | None = None

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
        waited: Seconds = sum(self.under_way[stage][first:], 0.0)
        slowed: Seconds = sum(self.slowed[stage][first:], 0.0) if self.slowed else 0.0
        return Parts(busy - slowed, waited + slowed, end[-1] - start - busy - waited)

    def waits(self, stage: int, first: int = 0) -> dict[Kind, tuple[Seconds, Seconds]]:
        """(transfer, bubble) before the slots of each kind, from place ``first`` on."""
        found: dict[Kind, tuple[Seconds, Seconds]] = {}
        free: Seconds = self.end[stage][first - 1] if first else 0.0
        slowed = self.slowed[stage] if self.slowed else [0.0] * len(self.orders[stage])
        clocks = zip(self.orders[stage], self.begin[stage], self.end[stage], self.under_way[stage], slowed, strict=True)
        for slot, begin, end, under_way, more in islice(clocks, first, None):
            transfer, bubble = found.get(slot.kind, (0.0, 0.0))
            found[slot.kind] = transfer + under_way + more, bubble + (begin - free - under_way)
            free = end
        return found


def play(
    orders: Sequence[Order],
    duration: Callable[[int, Slot], Seconds],
    transfer: Callable[[int, int, Kind], Seconds],
    making: Callable[[int, Slot], Seconds] | None = None,
    sharing: CardSharing | None = None,
    folded: bool = False,
) -> Timing:
    """Play the orders of all stages: a slot begins when its stage is free and its input has come.

    ``transfer(from, to, kind)`` are the seconds that an activation (kind F) or its gradient (B) needs between two stages; it
    does not keep the sender from working on. ``making`` are those of a slot after which its result can be sent, by default
    all of its ``duration``. With ``sharing``, messages queue for the cards that they keep busy, first come first served, and
    share them with what slots send (:mod:`.stage_cards`); where ranks of a stage differ, those of the slowest say in which order
    and by how much. ``folded`` says which parts chunks are (:func:`~athanor.workloads.pipelines.order.part_of`). Raises
    :class:`InputError` where stages wait for each other.
    """
    work = [[duration(stage, slot) for slot in order] for stage, order in enumerate(orders)]
    parts = [[making(stage, slot) for slot in order] for stage, order in enumerate(orders)] if making else work
    steps = sequence(orders, folded)
    asked = {(sender, stage, orders[stage][place][0]) for stage, place, source, sender in steps if source >= 0}
    between = {key: transfer(*key) if key[0] != key[1] else 0.0 for key in sorted(asked)}
    amounts = (each for some in (between.values(), *work, *parts) for each in some)
    later, sooner = (np.maximum, np.minimum) if any(isinstance(each, np.ndarray) for each in amounts) else (max, min)
    alone = _played(orders, steps, work, parts, between, later, sooner)
    if sharing is None or not between or not (sharing.crowds or _meet(alone, steps, sharing)):
        return alone
    return _on_cards(orders, steps, work, parts, between, sharing)


def play_endless(
    pipeline: Pipeline,
    stages: int,
    micro_batches: int,
    duration: Callable[[int, Slot], Seconds],
    transfer: Callable[[int, int, Kind], Seconds],
    making: Callable[[int, Slot], Seconds] | None = None,
    sharing: CardSharing | None = None,
) -> tuple[Timing, list[int]]:
    """Play an asynchronous pipeline until all stages take equally long for a step, and for the one before.

    Returns the clocks, and the place on each stage at which that last step begins.

    How long that takes depends on how much slower the slowest way through the pipeline is than others: at :data:`MOST_SLOTS` it
    is left at that. Micro-batches count on through all steps.
    """
    steps = 2 + 4 * stages // micro_batches
    while True:
        stream = streamed(pipeline, stages, micro_batches, steps)
        timing = play(stream.orders, duration, transfer, making, sharing)
        both = [timing.parts(stage, start).seconds for stage, start in enumerate(stream.last_but_one)]
        paces = [timing.parts(stage, start).seconds for stage, start in enumerate(stream.last)]
        settled = all(np.allclose(each, paces[0], rtol=1e-9, atol=0) for each in paces) and all(
            np.allclose(two, 2 * each, rtol=1e-9, atol=0) for two, each in zip(both, paces, strict=True)
        )
        most = MOST_SLOTS if timing.slowed is None else MOST_ON_CARDS
        if settled or 2 * sum(map(len, stream.orders)) > most:
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
    comes: list[list[Any]] = [[] for _ in orders]
    free: list[Any] = [0.0] * len(orders)
    done: list[Any] = []
    for stage, place, source, sender in steps:
        begin, under_way, there = free[stage], 0.0, 0.0
        if source >= 0:
            sending = between[sender, stage, orders[stage][place][0]]
            there = done[source] + sending
            begin = later(free[stage], there)
            under_way = sooner(begin - free[stage], sending)
        made = begin + parts[stage][place]
        end = free[stage] = begin + work[stage][place]
        begins[stage].append(begin)
        mades[stage].append(made)
        ends[stage].append(end)
        waits[stage].append(under_way)
        comes[stage].append(there)
        done.append(made)
    return Timing(orders, begins, mades, ends, waits, comes)


def _meet(timing: Timing, steps: Sequence[Step], sharing: CardSharing) -> bool:
    """Whether any message finds a card busy, with another message or with what slots send, if nothing queues."""
    cards: dict[tuple[int, int, bool], list[tuple[float, float]]] = {}
    places = [(stage, place) for stage, place, *_ in steps]
    wires: dict[tuple[int, int, Kind], tuple[Seconds, int]] = {}
    for stage, place, source, sender in steps:
        if source < 0 or sender == stage:
            continue
        key = sender, stage, timing.orders[stage][place].kind
        if key not in wires:
            wires[key] = sharing.wire(*key)
        wire, way = wires[key]
        if not (wire.any() if isinstance(wire, np.ndarray) else wire):
            continue
        for at, here, out in ((sender, places[source][1], True), (stage, place, False)):
            if sharing.share(at, timing.orders[at][here], way, out).block:
                return True
        made = timing.made[sender][places[source][1]]
        passed = made + wire
        if isinstance(made, float) and isinstance(passed, float):
            sent = made, passed
        else:
            sent = float(np.min(made)), float(np.max(passed))
        cards.setdefault((sender, way, True), []).append(sent)
        cards.setdefault((stage, way, False), []).append(sent)
    for each in cards.values():
        each.sort()
        if any(later[0] < sooner[1] * (1 - 1e-12) for sooner, later in pairwise(each)):
            return True
    return False


def _on_cards(
    orders: Sequence[Order],
    steps: Sequence[Step],
    work: list[list[Seconds]],
    parts: list[list[Seconds]],
    between: dict[tuple[int, int, Kind], Seconds],
    sharing: CardSharing,
) -> Timing:
    """The same with cards: event by event for the slowest rank of each stage; others keep its order, and its slowing down."""
    wires = {key: sharing.wire(*key) if key[0] != key[1] else (0.0, 0) for key in between}

    @cache
    def message(sender: int, receiver: int, kind: Kind) -> StageMessage:
        (wire, way), seconds = wires[sender, receiver, kind], between[sender, receiver, kind]
        longest = _longest(wire)
        return StageMessage(longest, _longest(seconds) - max(longest - sharing.burst, 0.0), way)

    def share(stage: int, place: int, way: int, out: bool) -> Slowing:
        return sharing.share(stage, orders[stage][place], way, out)

    def stretch(running: Sequence[int | None]) -> list[float]:
        slots = (None if place is None else (stage, orders[stage][place]) for stage, place in enumerate(running))
        return sharing.stretch(list(slots))

    slowest, made = ([[_longest(each) for each in some] for some in of] for of in (work, parts))
    cards = Cards(orders, steps, slowest, made, message, share, stretch if sharing.crowds else None, sharing.burst)
    clocks = cards.play()
    amounts = (each for some in (between.values(), *work, *parts) for each in some)
    alike = not any(isinstance(each, np.ndarray) for each in amounts)
    return _of_clocks(orders, work, clocks) if alike else _of_each_rank(cards, clocks, work, parts, between, wires)


def _longest(seconds: Seconds) -> float:
    """Of the slowest rank."""
    return float(np.max(seconds)) if isinstance(seconds, np.ndarray) else seconds


def _of_clocks(orders: Sequence[Order], work: list[list[Seconds]], clocks: list[list[Clocks]]) -> Timing:
    """The clocks of ranks that are alike."""
    under_way: list[list[Seconds]] = []
    for of_stage in clocks:
        frees = [0.0, *(each.end for each in of_stage[:-1])]
        under_way.append(
            [min(each.begin - free, each.came - each.sent) for free, each in zip(frees, of_stage, strict=True)]
        )
    return Timing(
        orders,
        [[each.begin for each in some] for some in clocks],
        [[each.made for each in some] for some in clocks],
        [[each.end for each in some] for some in clocks],
        under_way,
        [[each.came for each in some] for some in clocks],
        [
            [max(0.0, clock.end - clock.begin - seconds) for clock, seconds in zip(some, of, strict=True)]
            for some, of in zip(clocks, work, strict=True)
        ],
    )


def _of_each_rank(
    cards: Cards,
    clocks: list[list[Clocks]],
    work: list[list[Seconds]],
    parts: list[list[Seconds]],
    between: dict[tuple[int, int, Kind], Seconds],
    wires: dict[tuple[int, int, Kind], tuple[Seconds, int]],
) -> Timing:
    """The clocks of ranks that differ: events in the order of the slowest ranks', each rank on its own clock."""
    orders = cards.orders
    begins, mades, ends, waits, comes, slowed = (
        _lists(orders),
        _lists(orders),
        _lists(orders),
        _lists(orders),
        _lists(orders),
        _lists(orders),
    )
    free: list[Any] = [0.0] * len(orders)
    busy: dict[tuple[int, int, bool], Any] = {}
    came: dict[tuple[int, int], tuple[Any, Any]] = {}
    for (stage, place), message, began, ended in cards.log:
        if message:
            target = cards.reader[stage, place]
            key = stage, target[0], orders[stage][place].kind
            wire, way = wires[key]
            made = mades[stage][place]
            out, into = (stage, way, True), (target[0], way, False)
            start = np.maximum(made, np.maximum(busy.get(out, 0.0), busy.get(into, 0.0)))
            longest = float(np.max(wire))
            passed = start + wire * ((ended - began) / longest if longest else 1.0)
            busy[out] = busy[into] = passed
            if cards.burst:
                passed = np.maximum(made, passed - cards.burst)
            came[target] = made, passed + (between[key] - np.maximum(wire - cards.burst, 0.0))
            continue
        clock, begin, under_way, there = clocks[stage][place], free[stage], 0.0, 0.0
        if (stage, place) in came:
            sent, there = came.pop((stage, place))
            begin = np.maximum(begin, there)
            under_way = np.minimum(begin - free[stage], there - sent)
        made = float(np.max(parts[stage][place]))  # what the cards know: of the slowest rank, whichever that is
        rest = float(np.max(work[stage][place])) - made
        before = (clock.made - clock.begin) / made if made else 1.0
        after = (clock.end - clock.made) / rest if rest > 0 else 1.0
        mades[stage].append(begin + parts[stage][place] * before)
        end = mades[stage][-1] + (work[stage][place] - parts[stage][place]) * after
        slowed[stage].append(np.maximum(0.0, end - begin - work[stage][place]))
        free[stage] = end
        begins[stage].append(begin)
        ends[stage].append(end)
        waits[stage].append(under_way)
        comes[stage].append(there)
    return Timing(orders, begins, mades, ends, waits, comes, slowed)


def _lists(orders: Sequence[Order]) -> list[list[Any]]:
    """An empty list for each stage."""
    return [[] for _ in orders]
