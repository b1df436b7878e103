"""A step message by message: every rank goes its own way through the schedule, and all its messages share one network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...hardware.errors import DoesNotFit, InputError
from ...hardware.machine import Machine
from ...workloads.results.ledger import Ledger, last_to_come
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange, PipelineWork
from ..messages.message_simulation import Course, MessageSimulation
from ..messages.message_tables import MessageSteps
from ..messages.rank_symmetry import RankSymmetry
from ..network.links import Array, Index, LinkLoads
from ..network.topology import Graph
from .noise import Noise
from .step_engine import StepResult

MOST_MESSAGES = 4e6
"""Messages of a step above which it is refused: minutes."""


class RankByRank:
    """Runs a schedule once, all ranks starting at zero: no phases, no classes, nothing that stands for something else.

    A rank begins an operation when its own stream and what the operation waits for are done on that rank. It begins a collective
    without waiting for the others, and each of its messages as soon as both ends are there.
    """

    def __init__(
        self, machine: Machine, schedule: Schedule, noise: Noise, observed: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.machine, self.schedule, self.layout, self.mesh = machine, schedule, schedule.layout, schedule.mesh
        self.graph = Graph.of(machine, self.layout)
        self.orbits = RankSymmetry.alone(self.graph)
        self.costs = Costs(machine, self.layout.ranks_per_node, self.layout.present)
        self.noise, self.slowness = noise, noise.slowness()
        self.ledger = Ledger(schedule, observed)
        self.race = MessageSimulation(self.graph.capacity, burst=machine.calibration.link_burst or 0.0)
        self.courses: dict[int, Course] = {}
        self.numbers: dict[Course, int] = {}
        self.known: dict[object, MessageSteps] = {}
        self.limits: dict[int, str] = {}
        self._refuse()
        before, ranks = _before(schedule), self.mesh.ranks
        self.next: list[list[int]] = [[] for _ in before]
        for number, others in enumerate(before):
            for other in others:
                self.next[other].append(number)
        self.missing = np.repeat([[len(others)] for others in before], ranks, axis=1)
        self.ready, self.end = np.zeros((len(before), ranks)), np.zeros((len(before), ranks))

    def run(self) -> StepResult:
        """Simulate the step."""
        first = np.flatnonzero(self.missing[:, 0] == 0)
        self._begin([(int(number), np.arange(self.mesh.ranks)) for number in first])
        self.race.run(lambda course, ranks: self._ended(self.numbers[course], ranks, course.through[ranks]))
        return self._result()

    def _ended(self, number: int, ranks: Index, at: Array) -> None:
        """Ranks have ended a collective."""
        self._begin(self._freed(number, ranks, at))

    def _begin(self, free: list[tuple[int, Index]]) -> None:
        """Ranks begin operations, each at its own time, and go on through what they compute until the next collective."""
        while free:
            number, ranks = free.pop()
            work, ready = self.schedule.operations[number].work, self.ready[number][ranks]
            if isinstance(work, Exchange) and self.mesh.size(*work.axes) > 1:
                if number not in self.courses:
                    self.courses[number] = course = self.race.add(self._steps(number, work))
                    self.numbers[course] = number
                self.courses[number].come(ranks, ready)
                continue
            seconds: Array | float = 0.0
            if not isinstance(work, Exchange):
                timed = self.costs.of(work)
                self.limits[number] = timed.limit
                every = timed.seconds * self.slowness * self.noise.of_operation(number)
                seconds = np.broadcast_to(every, self.mesh.shape).reshape(-1)[ranks]
            free += self._freed(number, ranks, ready + seconds)

    def _freed(self, number: int, ranks: Index, at: Array) -> list[tuple[int, Index]]:
        """Note when ranks have ended an operation; returns what they can begin now."""
        self.end[number][ranks] = at
        found = []
        for following in self.next[number]:
            self.ready[following][ranks] = np.maximum(self.ready[following][ranks], at)
            self.missing[following][ranks] -= 1
            free = ranks[self.missing[following][ranks] == 0]
            if len(free):
                found.append((following, free))
        return found

    def _steps(self, number: int, exchange: Exchange) -> MessageSteps:
        """The steps of an exchange; layers repeat, so even ones are made once."""
        even = isinstance(exchange.nbytes, float) and exchange.received is None and exchange.pairs is None
        key = (
            (exchange.operation, exchange.algorithm, exchange.axes, exchange.nbytes, exchange.root) if even else number
        )
        if key not in self.known:
            self.known[key] = MessageSteps.of_exchange(self.graph, exchange, self.orbits)
        return self.known[key]

    def _refuse(self) -> None:
        """Raise :class:`DoesNotFit` where the step has too many messages."""
        works = [(number, each.work) for number, each in enumerate(self.schedule.operations)]
        if any(isinstance(work, PipelineWork) for _, work in works):
            raise InputError(
                "--depth message: pipelines are looked at block by block; --depth fluid or links takes them"
            )
        count = 0.0
        for number, work in works:
            if isinstance(work, Exchange) and self.mesh.size(*work.axes) > 1:
                count += self._steps(number, work).size
        if count > MOST_MESSAGES:
            raise DoesNotFit(
                f"--depth message: a step of {count:,.0f} messages, where {MOST_MESSAGES:,.0f} can be done; --depth fluid looks"
                " at classes of them, --depth links at none"
            )

    def _result(self) -> StepResult:
        """Account for the step, operation by operation."""
        mesh, loads = self.mesh, LinkLoads(self.graph.kinds)
        for number, operation in enumerate(self.schedule.operations):
            ready = self.ledger.ready(number)
            end = self.end[number].reshape(mesh.shape)
            begin = self.ready[number].reshape(mesh.shape)
            if isinstance(operation.work, Exchange):
                begin = np.minimum(last_to_come(begin, mesh.positions(operation.work.axes)), end)
                if number in self.courses:
                    self.limits[number] = self._count(self.courses[number].steps, loads)
            self.ledger.done(number, ready, begin, end, self.limits.get(number, "none"))
        return StepResult(self.ledger.close(), self.ledger.exposure.seconds, self.ledger.rows, loads, self.race.events)

    def _count(self, steps: MessageSteps, loads: LinkLoads) -> str:
        """Add the bytes of a collective on every link; returns what holds it back: a kind of link, or its messages."""
        here = steps.totals.loads
        for number, name in enumerate(self.graph.names):
            own = here[self.graph.kind == number]
            loads.plus(LinkLoads(loads.kinds, {name: own}), 1.0)
        busy = here / self.graph.capacity
        most = int(busy.argmax())
        return self.graph.names[self.graph.kind[most]] if busy[most] >= steps.totals.waits else "messages"


def _before(schedule: Schedule) -> list[list[int]]:
    """What each operation waits for: what it names, and what its stream does before it."""
    latest: dict[str, int] = {}
    before = []
    for number, operation in enumerate(schedule.operations):
        own = [latest[operation.stream]] if operation.stream in latest else []
        before.append(sorted({*operation.after, *own}))
        latest[operation.stream] = number
    return before
