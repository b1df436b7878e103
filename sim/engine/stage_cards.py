"""Hand-overs of a pipeline on the cards of its stages: they queue, and share them with what stages themselves send."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.pipelines import Kind, Order, Step

Array = NDArray[np.float64]
Marks = NDArray[np.bool_]


class StageMessage(NamedTuple):
    """A hand-over: ``wire`` seconds out of its sender's card and into its receiver's, then ``latency`` until it is there.

    Messages of one ``way`` (inside a node, or out of it) leave a stage through the same card, and enter one through the same.
    """

    wire: float
    latency: float
    way: int = 0


class Clocks(NamedTuple):
    """Of a slot: its begin, when its result was made, its end, and when its input left its maker and came (0 where none did)."""

    begin: float
    made: float
    end: float
    sent: float
    came: float


class Slowing(NamedTuple):
    """By how much longer a slot, and a message, take for each second at full speed while both are under way.

    ``crowded``: on a link on which stages meet, so that it adds to how they slow each other. On another link a slot that is slow
    anyway leaves a message its part.
    """

    block: float = 0.0
    message: float = 0.0
    crowded: bool = False

    @classmethod
    def of(cls, busy: float, part: float, crowded: bool = False) -> Slowing:
        """Of a link that a slot keeps ``busy`` for a part of its time, in bursts, and of which a message takes a ``part``.

        In a burst the message gets half of the link, or what it takes, if that is less. It has all it takes between bursts.
        """
        got = min(part, 0.5)
        burst = busy / (1.0 - got)
        block = 1.0 - busy + burst
        return cls(block - 1.0, 1.0 / (1.0 - burst / block * (1.0 - got / part)) - 1.0, crowded)

    @classmethod
    def most(cls, busy: Array, part: Array, crowded: Marks) -> Slowing:
        """The link of several on which a slot is slowed most, and how much a message is on any."""
        got = np.minimum(part, 0.5)
        burst = busy / (1.0 - got)
        block = 1.0 - busy + burst
        message = 1.0 / (1.0 - burst / block * (1.0 - got / part)) - 1.0
        at = int(block.argmax())
        return cls(float(block[at]) - 1.0, float(message.max()), bool(crowded[at]))


Share = Callable[[int, int, int, bool], Slowing]
"""``share(stage, place, way, out)``: how a slot and a message slow each other that goes out of its stage, or in."""

Stretch = Callable[[Sequence[int | None]], list[float]]
"""``stretch(running)``: by how much longer than alone each stage takes while stages run the slots at these places of theirs."""

Place = tuple[int, int]
"""A stage, and a place in its order."""

LANES = ((0, True), (0, False), (1, True), (1, False))
"""The cards of a stage: (way, whether out of it)."""


class Event(NamedTuple):
    """A slot that began, or the message with its result: events stand in an order in which each comes after what it needs.

    ``began`` and ``ended`` are those of the message on the wire.
    """

    place: Place
    message: bool
    began: float = 0.0
    ended: float = 0.0


@dataclass(eq=False)
class _Progress:
    """Something that goes on at a speed that changes: seconds of it that are left at full speed."""

    left: float
    since: float
    speed: float = 0.0
    version: int = 0

    def settle(self, now: float) -> None:
        """Count what has been done until now."""
        self.left -= self.speed * (now - self.since)
        self.since = now


@dataclass(eq=False)
class _Slot(_Progress):
    """A slot at work, until its result is made and then until its end."""

    place: Place = (0, 0)
    begin: float = 0.0
    after: float = 0.0  # seconds of its work that come when its result is made
    made: float = -1.0
    shares: list[Slowing | None] = field(default_factory=lambda: [None] * len(LANES))  # by lane, once asked


@dataclass(eq=False)
class _Sending(_Progress):
    """A message that waits for its cards or passes."""

    source: Place = (0, 0)
    target: Place = (0, 0)
    way: int = 0
    latency: float = 0.0
    made: float = 0.0
    began: float = 0.0


class Cards:
    """A pipeline event by event.

    A card sends, and receives, one message of the pipeline at a time, first come first served. Exchanges of a slot keep the same
    card busy in bursts. While a message passes, slot and message slow each other by ``share``: in the bursts of the slot both
    have half of the card, between them the message has all of it, so that the card is never idle meanwhile and never does more
    than it can. With ``stretch``, slots that run at once slow each other too.

    With a ``burst`` cards are token buckets: what comes passes at once, as long as no more than so many seconds of bytes have
    come that the card at its own rate would still have to send. Slots and messages then do not slow each other.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        steps: Sequence[Step],
        work: Sequence[Sequence[float]],
        parts: Sequence[Sequence[float]],
        message: Callable[[int, int, Kind], StageMessage],
        share: Share,
        stretch: Stretch | None = None,
        burst: float = 0.0,
    ) -> None:
        self.burst, self._drained = burst, dict[tuple[int, int, bool], float]()
        self.stretch, self._stretched = stretch, [1.0] * len(orders)
        self.orders, self.work, self.parts, self.message, self.share = orders, work, parts, message, share
        where: list[Place] = [(stage, place) for stage, place, *_ in steps]
        self.reader = {
            where[source]: (stage, place) for stage, place, source, sender in steps if source >= 0 and sender != stage
        }
        self.needs = set(self.reader.values())
        self.came: dict[Place, tuple[float, float]] = {}
        self.clocks: list[list[Clocks]] = [[] for _ in orders]
        self.log: list[Event] = []
        self._running: list[_Slot | None] = [None] * len(orders)
        self._queues: dict[tuple[int, int], deque[_Sending]] = {}
        self._busy: list[list[_Sending | None]] = [[None] * len(LANES) for _ in orders]
        self._held: dict[tuple[int, int], deque[_Sending]] = {}
        self._events: list[tuple[float, int, int, _Progress | Place]] = []
        self._now, self._count = 0.0, 0

    def play(self) -> list[list[Clocks]]:
        """Clocks of all slots, ``[stage][place]``."""
        for stage in range(len(self.orders)):
            self._next(stage)
        while self._events:
            self._now, _, version, what = heappop(self._events)
            if not isinstance(what, _Progress):
                self._next(what[0])
            elif version == what.version:
                what.left, what.since = 0.0, self._now
                if isinstance(what, _Slot):
                    self._slot_goes_on(what)
                elif isinstance(what, _Sending):
                    self._arrives(what)
        return self.clocks

    def _push(self, at: float, version: int, what: _Progress | Place) -> None:
        self._count += 1
        heappush(self._events, (at, self._count, version, what))

    def _pace(self, what: _Progress, speed: float) -> None:
        """Go on at another speed."""
        if speed != what.speed:
            what.settle(self._now)
            what.speed, what.version = speed, what.version + 1
            self._push(self._now + max(what.left, 0.0) / speed, what.version, what)

    def _next(self, stage: int) -> None:
        """Begin a stage's next slot, if it is free and the input has come."""
        place = (stage, len(self.clocks[stage]))
        if self._running[stage] is not None or place[1] == len(self.orders[stage]):
            return
        if place in self.needs and self.came.get(place, (0.0, float("inf")))[1] > self._now:
            return
        work, part = self.work[stage][place[1]], self.parts[stage][place[1]]
        self.log.append(Event(place, False))
        slot = _Slot(part, self._now, place=place, begin=self._now, after=work - part)
        self._running[stage] = slot
        self._stage_changes(stage)

    def _slot_goes_on(self, slot: _Slot) -> None:
        """Its result is made, or it has ended."""
        stage = slot.place[0]
        if slot.made < 0:
            slot.made = self._now
            target = self.reader.get(slot.place)
            if target is not None:
                self._hand_over(slot.place, target)
            if slot.after > 0:
                slot.left, slot.version = slot.after, slot.version + 1
                self._push(self._now + slot.left / slot.speed, slot.version, slot)
                return
        self.clocks[stage].append(Clocks(slot.begin, slot.made, self._now, *self.came.pop(slot.place, (0.0, 0.0))))
        slot.version += 1  # no event of it that is still to come counts
        self._running[stage] = None
        self._stage_changes(stage)
        self._next(stage)

    def _hand_over(self, source: Place, target: Place) -> None:
        """A message stands in the queue of its sender's card."""
        wire, latency, way = self.message(source[0], target[0], self.orders[source[0]][source[1]].kind)
        message = _Sending(wire, self._now, source=source, target=target, way=way, latency=latency, made=self._now)
        if wire <= 0:
            self._there(message)
            return
        if self.burst:
            cards = (source[0], way, True), (target[0], way, False)
            start = max(self._now, *(self._drained.get(card, 0.0) for card in cards))
            self._drained |= dict.fromkeys(cards, start + wire)
            self._there(message, max(self._now, start + wire - self.burst), start)
            return
        queue = self._queues.setdefault((source[0], way), deque())
        queue.append(message)
        if len(queue) == 1:
            self._send(message)

    def _send(self, message: _Sending) -> None:
        """The first in the queue goes, once its receiver's card is free."""
        sender, receiver, lane = message.source[0], message.target[0], 2 * message.way
        if self._busy[receiver][lane + 1] is not None:
            self._held.setdefault((receiver, message.way), deque()).append(message)
            return
        self._busy[sender][lane] = self._busy[receiver][lane + 1] = message
        message.since = message.began = self._now
        self._message_changes(message)
        self._slot_changes(sender)
        if receiver != sender:
            self._slot_changes(receiver)

    def _arrives(self, message: _Sending) -> None:
        """The last byte has passed: both cards are free."""
        sender, receiver, way = message.source[0], message.target[0], message.way
        self._busy[sender][2 * way] = self._busy[receiver][2 * way + 1] = None
        queue = self._queues[sender, way]
        queue.popleft()
        self._there(message)
        self._slot_changes(sender)
        if receiver != sender:
            self._slot_changes(receiver)
        held = self._held.get((receiver, way))
        if held:
            self._send(held.popleft())
        if queue:
            self._send(queue[0])

    def _there(self, message: _Sending, passed: float | None = None, began: float | None = None) -> None:
        """A message has passed its cards now; or will have, where it keeps them until ``began`` and its wire."""
        at = (self._now if passed is None else passed) + message.latency
        ended = self._now if began is None else began + message.left
        self.log.append(Event(message.source, True, (message.began or message.made) if began is None else began, ended))
        self.came[message.target] = message.made, at
        self._push(at, 0, message.target)

    def _stage_changes(self, stage: int) -> None:
        """Another slot runs, or none."""
        if self.stretch:
            before = self._stretched
            self._stretched = self.stretch([None if slot is None else slot.place[1] for slot in self._running])
            for other, (old, new) in enumerate(zip(before, self._stretched, strict=True)):
                if old != new and other != stage:
                    self._slot_changes(other)
        self._slot_changes(stage)
        for message in self._busy[stage]:
            if message is not None:
                self._message_changes(message)

    def _slot_changes(self, stage: int) -> None:
        slot = self._running[stage]
        if slot is None:
            return
        slowest = stretch = self._stretched[stage]
        for lane, message in enumerate(self._busy[stage]):
            if message is not None:
                share = slot.shares[lane] or self._share(slot, lane)
                slowest = max(slowest, stretch + share.block if share.crowded else 1.0 + share.block)
        self._pace(slot, 1.0 / slowest)

    def _message_changes(self, message: _Sending) -> None:
        most, lane = 0.0, 2 * message.way
        for stage, mine in ((message.source[0], lane), (message.target[0], lane + 1)):
            slot = self._running[stage]
            if slot is not None:
                most = max(most, (slot.shares[mine] or self._share(slot, mine)).message)
        self._pace(message, 1.0 / (1.0 + most))

    def _share(self, slot: _Slot, lane: int) -> Slowing:
        """How a slot and messages of a lane slow each other, kept with the slot."""
        slot.shares[lane] = found = self.share(*slot.place, *LANES[lane])
        return found
