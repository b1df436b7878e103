"""Collectives message by message: ranks go their own ways from step to step, and all messages share one network.

A message begins when its sender and its receiver have both come to its step (rendezvous), and a rank goes on when all that
it sends and receives in a step has ended, as with MPI_Sendrecv of large messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..network.fluid import TOGETHER, Fluid
from ..network.links import Array, Index
from .contention_free import contention_free
from .message_tables import MessageSteps, Sends, Window, fingerprints
from .sender_classes import play_merged
from .unsaturated_links import unsaturated_links


def play(collectives: Sequence[tuple[MessageSteps, Array]]) -> list[Array]:
    """When each orbit of ranks of each collective is through, in seconds, given when each of them comes.

    Collectives run side by side on one network; their links must have the same orbits.
    """
    costs = collectives[0][0].costs
    if len(collectives) == 1 and not (costs.measured or costs.burst):
        steps, start = collectives[0]
        if not start.any() and (through := play_merged(steps)) is not None:
            return [through]
        never_full = unsaturated_links(steps)
        if never_full.all() and not steps.crowds:
            return [contention_free(steps, start)]
        if never_full.any():
            collectives = [(steps.without(never_full), start)]
    alone = len(collectives) == 1 and not costs.burst
    race = MessageSimulation(collectives[0][0].capacity, alone, costs.burst)
    courses = [race.add(steps) for steps, _ in collectives]
    for course, (_, start) in zip(courses, collectives, strict=True):
        course.come(np.arange(len(start)), start)
    race.run()
    return [course.through for course in courses]


def in_turn(steps: MessageSteps) -> float:
    """Seconds of a collective in which all ranks wait for each other after each step.

    All flows of a step begin together, and a message's bytes come as much later as it has to wait for its first, as in a
    training step at this depth (:class:`~athanor.sim.network.phases.transfers.Transfer`).
    """
    seconds, known = 0.0, dict[tuple[int, bool], float]()
    for each, times in steps.rows():
        for hidden, often in _hidden(steps, each.wait[each.receiver >= 0], times, first=not seconds):
            key = int(fingerprints(each)), not seconds
            if key not in known:
                known[key] = _together(each[each.receiver >= 0], steps, hidden)
            seconds += often * known[key]
    return seconds


def _hidden(steps: MessageSteps, wait: Array, times: int, first: bool) -> list[tuple[Array | float, int]]:
    """(seconds of bytes that idle links let pass at once, how often) of a step that comes so many times in a row.

    Before the first step of a collective links have been idle, before others while their messages started.
    """
    burst = steps.costs.burst
    if not burst:
        return [(0.0, times)]
    idle: list[tuple[Array | float, int]] = [(burst, 1)] if first else []
    return [*idle, (steps.costs.hidden(wait), times - len(idle))] if times > len(idle) else idle


def by_busiest_link(steps: MessageSteps) -> float:
    """The same, where a message takes as long as the most loaded link on its way, and of a crowd all wait for the farthest."""
    seconds, rates = 0.0, np.append(steps.capacity, np.inf)
    for each, times in steps.rows():
        sent = each[each.receiver >= 0]
        crowd = len(sent.sender) > len(np.unique(sent.sender))
        loads = np.zeros(len(rates))
        for hop in range(sent.links.shape[1]):
            loads += np.bincount(sent.links[:, hop], sent.usage[:, hop] * sent.nbytes, len(loads))
        worst = np.where(sent.nbytes > 0, (loads / rates)[sent.links].max(axis=1, initial=0.0), 0.0)
        wait = np.where(sent.times > 0, sent.wait, 0.0)
        longest = wait.max(initial=0.0) if crowd else wait
        for hidden, often in _hidden(steps, wait, times, first=not seconds):
            ends = np.maximum(worst - hidden, np.where(sent.nbytes > 0, sent.nbytes / sent.limit, 0.0)) + longest
            seconds += often * max(float(ends.max(initial=0.0)), float(sent.wait.max(initial=0.0)))
    return seconds


def _together(messages: Sends, steps: MessageSteps, hidden: Array | float) -> float:
    """Seconds until the last of some messages, whose flows all begin together, has ended; ``hidden`` ones cost nothing."""
    count = len(messages.sender)
    fluid = Fluid(count, messages.links.shape[-1], np.append(steps.capacity, np.inf))
    fluid.book(np.arange(count), messages.links, messages.usage, messages.weight, messages.limit, messages.nbytes)
    fluid.begin(np.flatnonzero(messages.nbytes > 0))
    fluid.settle()
    last = float(messages.wait.max(initial=0.0))
    while (now := fluid.next()) < np.inf:
        ended = fluid.advance(now)
        ends = now + messages.wait[ended]
        if steps.costs.burst:
            ends -= np.broadcast_to(hidden, messages.wait.shape)[ended]
            ends = np.maximum(ends, messages.wait[ended] + messages.nbytes[ended] / messages.limit[ended])
        last = max(last, float(ends.max()))
        fluid.settle()
    return last


class MessageSimulation:
    """Collectives under way together, from event to event.

    Each that is added is a course; ranks come to it when they are told to, before the race or while it runs. ``alone`` says
    that there will be a single one, so that it may skip what it knows.
    """

    def __init__(self, capacity: Array, alone: bool = False, burst: float = 0.0) -> None:
        """``capacity[link]`` in bytes per second, of each orbit of links; idle ones have ``burst`` seconds for free."""
        self.alone = alone
        self.fluid = Fluid(0, 0, np.append(capacity, np.inf), burst)
        self.waiting = np.zeros(0)  # when the first byte goes, of each message that has begun
        self.running: list[Course] = []
        self.events = 0
        self._free: dict[int, list[int]] = {}  # first slots that courses of a size have left

    def add(self, steps: MessageSteps) -> Course:
        """A collective to which ranks may come from now on."""
        course = Course(self, steps)
        self.running.append(course)
        places = self._free.get(course.slots)
        if places:
            course.first = places.pop()
        else:
            course.first = len(self.waiting)
            self.waiting = np.append(self.waiting, np.full(course.slots, np.inf))
            self.fluid.grow(len(self.waiting), course.width)
        return course

    def run(self, arrived: Callable[[Course, Index], None] | None = None) -> None:
        """Play until all are through; ``arrived`` hears of each course's ranks as they are through with it."""
        fluid = self.fluid
        while True:
            first = float(waiting[waiting.argmin()]) if len(waiting := self.waiting) else np.inf
            now = min(fluid.next(), first, *(course.next_to_come for course in self.running))
            if now == np.inf:
                return
            self.events += 1
            ended, ready = fluid.advance(now), np.zeros(0, dtype=np.int64)
            if first <= now * TOGETHER:
                ready = np.flatnonzero(self.waiting <= now * TOGETHER)
                self.waiting[ready] = np.inf
                moving = fluid.left[ready] > 0
                if not moving.all():
                    ended, ready = np.concatenate([ended, ready[~moving]]), ready[moving]
                fluid.begin(ready)
            for course in list(self.running):
                through = course.go_on(ended)
                if course.over:
                    self.running.remove(course)
                    self._free.setdefault(course.slots, []).append(course.first)
                if arrived and len(through):
                    arrived(course, through)
            fluid.settle()


class Course:
    """One collective of a race.

    ``at[r]`` is the step that each orbit of ranks is in (-1 before it comes), ``open[r]`` how many messages of that step have
    not ended. Of the network's slots, from ``first`` on, each rank has one for what it sends, and each message of a step in
    which every rank sends to every other one of its own.
    """

    def __init__(self, race: MessageSimulation, steps: MessageSteps) -> None:
        self.race, self.steps, self.first = race, steps, 0
        self.at = np.full(steps.ranks, -1, dtype=np.int64)
        self.open = np.zeros(steps.ranks, dtype=np.int64)
        self.start, self.through = np.full(steps.ranks, np.inf), np.full(steps.ranks, np.inf)
        self.next_to_come = np.inf
        self.windows = [steps.window(0)] if steps.total else []
        self.slot_of_crowd: dict[int, int] = {}
        self.sender, self.receiver = np.arange(steps.ranks), np.full(steps.ranks, -1, dtype=np.int64)
        for low, crowd in steps.crowds.items():
            self.slot_of_crowd[low] = len(self.sender)
            self.sender = np.concatenate([self.sender, crowd.sender])
            self.receiver = np.concatenate([self.receiver, crowd.receiver])
        self.slots = len(self.sender)
        tables = [*steps.crowds.values(), *(window.messages for window in self.windows)]
        self.width = max((each.links.shape[-1] for each in tables), default=0)
        self.begun = np.zeros(self.slots, dtype=bool)
        self.missing = steps.ranks
        self.known: dict[int, float] = {}
        self.mark: tuple[int, int, float] | None = None
        self.ends = 0

    @property
    def over(self) -> bool:
        """Whether all ranks are through."""
        return self.missing == 0

    def come(self, ranks: Index, at: Array) -> None:
        """Ranks (orbits of them) come at these times, none of them in the past."""
        self.start[ranks] = at
        self.next_to_come = float(self.start.min())

    def go_on(self, ended: Index) -> Index:
        """Count messages that have ended, and take ranks that have none left, or that come just now, to their next step.

        Returns the ranks that are through now.
        """
        now, onward = self.race.fluid.now, np.zeros(0, dtype=np.int64)
        if not self.race.alone:
            ended = ended[(ended >= self.first) & (ended < self.first + self.slots)] - self.first
        if len(ended):
            onward = self._end(ended)
        if self.next_to_come <= now * TOGETHER:
            come = np.flatnonzero(self.start <= now * TOGETHER)
            self.start[come] = np.inf
            self.next_to_come = float(self.start.min())
            onward = np.concatenate([onward, come])
        if not len(onward):
            return onward
        through = [onward[:0]]
        while len(onward):
            self.at[onward] += 1
            if self.race.alone and len(onward) == len(self.at):
                self._skip()
            over = self.at[onward] >= self.steps.total
            if over.any():
                through.append(onward[over])
                onward = onward[~over]
            onward = self._enter(onward)
        done = np.concatenate(through)
        self.through[done] = self.race.fluid.now
        self.missing -= len(done)
        return done

    def _end(self, slots: Index) -> Index:
        """Count messages as ended; returns the ranks that have none left in their step."""
        self.ends += 1
        ranks = np.concatenate([self.sender[slots], self.receiver[slots]])
        self.open -= np.bincount(ranks, minlength=len(self.open))
        free = np.zeros(len(self.open), dtype=bool)
        free[ranks] = True
        return np.flatnonzero(free & (self.open == 0))

    def _skip(self) -> None:
        """All ranks come to a step together: pass over those whose messages all take the same known time, whoever sends them."""
        fluid, step = self.race.fluid, int(self.at[0])
        if (self.at != step).any():
            self.mark = None
            return
        if self.mark and self.mark[0] == step - 1 and self.ends == self.mark[1] + 1:
            before = self._window(step - 1)
            if not before.crowd:
                self.known[before.key(step - 1)] = fluid.now - self.mark[2]
        while step < self.steps.total:
            if step >= self.windows[-1].high:
                self.at[:] = step
            window = self._window(step)
            if window.crowd or (seconds := self.known.get(window.key(step))) is None:
                break
            fluid.now += seconds
            step += 1
        self.at[:] = step
        self.mark = (step, self.ends, fluid.now)

    def _window(self, step: int) -> Window:
        """The table that holds a step; tables that no rank needs any more are let go."""
        for window in self.windows:
            if window.low <= step < window.high:
                return window
        done = int(self.at.min()) - 1
        self.windows = [window for window in self.windows if window.high > done]
        self.windows.append(self.steps.window(step))
        return self.windows[-1]

    def _enter(self, ranks: Index) -> Index:
        """Ranks begin what can begin in the step that they have come to; returns those that have nothing to do in it."""
        idle = [ranks[:0]]
        while len(ranks):
            step = self.at[ranks]
            lowest = int(step.min())
            window = self._window(lowest)
            here = step < window.high
            some, ranks = (ranks, ranks[:0]) if here.all() else (ranks[here], ranks[~here])
            idle.append(self._enter_crowd(window, some) if window.crowd else self._enter_table(window, some))
        return np.concatenate(idle)

    def _enter_table(self, window: Window, ranks: Index) -> Index:
        step = self.at[ranks]
        row = window.row(step)
        which = row * len(self.at) + ranks
        target, source = window.flat.receiver[which], window.source.reshape(-1)[which]
        sends, comes = target >= 0, source >= 0
        self.open[ranks] = sends.astype(np.int64) + comes
        self.receiver[ranks] = target
        found = np.zeros(len(self.at), dtype=bool)
        found[ranks[sends & (self.at[target] == step)]] = True
        found[source[comes & (self.at[source] == step)]] = True
        begin = np.flatnonzero(found)
        if len(begin):
            self._start(window, begin, window.row(self.at[begin]) * len(self.at) + begin)
        idle: Index = ranks[~(sends | comes)]
        return idle

    def _enter_crowd(self, window: Window, ranks: Index) -> Index:
        crowd, first = window.messages, self.slot_of_crowd[window.low]
        here, begun = self.at == window.low, self.begun[first : first + len(crowd.sender)]
        pairs = np.bincount(crowd.sender, minlength=len(here)) + np.bincount(crowd.receiver, minlength=len(here))
        self.open[ranks] = pairs[ranks]
        begin = np.flatnonzero(here[crowd.sender] & here[crowd.receiver] & ~begun)
        begun[begin] = True
        if len(begin):
            self._start(window, first + begin, begin)
        idle: Index = ranks[self.open[ranks] == 0]
        return idle

    def _start(self, window: Window, slots: Index, which: Index) -> None:
        """Messages begin: their first byte goes after their wait; what nothing can hold back also ends at a known time."""
        race, slots = self.race, slots + self.first
        free = window.alone[which]
        if free.any():
            race.fluid.pass_by(slots[free], window.seconds[which[free]])
            slots, which = slots[~free], which[~free]
        if len(slots):
            each = window.flat
            links, usage = each.links[which], each.usage[which]
            race.fluid.book(slots, links, usage, each.weight[which], each.limit[which], each.nbytes[which])
            race.waiting[slots] = race.fluid.now + each.wait[which]
