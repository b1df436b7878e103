"""The referee of a step: one SimPy process for each rank and stream, which does what that rank's flat list says.

It knows no classes, phases, blocks or symmetry. A collective begins when the last of its group has come, and each of its steps
when the one before is over in the group. Hand-overs of a pipeline queue: a rank sends one at a time and receives one at a time,
apart for those inside its node and those out of it. All messages, of collectives and hand-overs, share one network.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
import simpy
from athanor.hardware.machine import Machine
from athanor.workloads.lowering.unroll import ARRIVALS, DEPARTURES, unrolled
from athanor.workloads.schedule.costs import Costs
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, PipelineWork
from oracles.naive_network import Routes, Stage, Tree, plan
from oracles.referee.network import Network

Slower = Callable[[int], float | np.ndarray]
"""By how much each rank is slower than usual in an operation of the schedule, broadcasting over the mesh."""


class Referee:
    """Plays a schedule on a machine; ``times[operation, rank]`` are begin and end of every operation by name."""

    def __init__(self, machine: Machine, schedule: Schedule, slower: Slower = lambda number: 1.0) -> None:
        self.machine, self.layout, self.mesh = machine, schedule.layout, schedule.mesh
        self.costs = Costs(machine, self.layout.ranks_per_node, self.layout.present)
        self.tree = (Tree if machine.fabric.kind == "pruned-fat-tree" else Routes)(machine, self.layout)
        self.env = simpy.Environment()
        self.network = Network(self.env, self.tree.route, self.tree.capacity)
        self.times: dict[tuple[str, int], tuple[float, float]] = {}
        self.came: dict[tuple[str, int], simpy.Event] = {}  # hand-overs, by receiver
        self.meetings: dict[tuple[str, tuple[int, ...]], list] = {}
        self.cards: dict[tuple[int, bool, str], simpy.Resource] = {}
        self._seconds: dict[tuple[int, str], np.ndarray] = {}
        self._plans: dict[object, list[Stage]] = {}
        self._groups: dict[tuple[str, ...], dict[int, tuple[int, ...]]] = {}
        self._full: dict[int, np.ndarray] = {}
        self.kept: list[object] = [schedule]  # what is known by its id must not go
        flat = any(isinstance(each.work, PipelineWork) for each in schedule.operations)
        place = self.mesh.positions(("pp",))
        lists: dict[int, tuple[Operation, ...]] = {}
        for rank in range(self.mesh.ranks):
            coordinate = tuple(map(int, np.unravel_index(rank, self.mesh.shape)))
            stage = coordinate[place[0]] if place else 0
            if stage not in lists:
                lists[stage] = unrolled(schedule, coordinate) if flat else schedule.operations
            mine = lists[stage]
            done = [self.env.event() for _ in mine]
            for stream in dict.fromkeys(each.stream for each in mine):
                own = [(number, each) for number, each in enumerate(mine) if each.stream == stream]
                # jitter belongs to the operations of a schedule; where they are unrolled, only nodes differ
                numbers = [-1 if flat else number for number, _ in own]
                self.env.process(self._stream(rank, own, numbers, done, slower))

    def run(self) -> float:
        """Seconds until the last rank is through."""
        self.env.run()
        return max((end for _, end in self.times.values()), default=0.0)

    def _stream(
        self,
        rank: int,
        operations: Sequence[tuple[int, Operation]],
        numbers: Sequence[int],
        done: list[simpy.Event],
        slower: Slower,
    ) -> Generator[simpy.Event, object, None]:
        for (place, operation), number in zip(operations, numbers, strict=True):
            for other in operation.after:
                yield done[other]
            work, begin = operation.work, self.env.now
            if operation.stream == ARRIVALS:
                yield self._arrival(operation.name, rank)
            elif operation.stream == DEPARTURES:
                self.env.process(self._hand_over(operation, rank))
            elif isinstance(work, Exchange):
                begin = yield from self._meet(operation.name, work, rank)
            else:
                yield self.env.timeout(self._lasts(operation, number, slower)[rank])
            self.times[operation.name, rank] = begin, self.env.now
            done[place].succeed()

    def _lasts(self, operation: Operation, number: int, slower: Slower) -> np.ndarray:
        """Seconds of computing on every rank."""
        key = number, operation.name if number >= 0 else str(id(operation.work))
        if key not in self._seconds:
            every = np.asarray(self.costs.of(operation.work).seconds * slower(number), dtype=float)
            self._seconds[key] = self.mesh.full(every)
            self.kept.append(operation)
        return self._seconds[key]

    def _amount(self, amount: object, rank: int) -> float:
        """A rank's own of an amount."""
        if np.ndim(amount) == 0:
            return float(amount)
        if id(amount) not in self._full:
            self._full[id(amount)] = self.mesh.full(np.asarray(amount, dtype=float))
            self.kept.append(amount)
        return float(self._full[id(amount)][rank])

    def _arrival(self, name: str, rank: int) -> simpy.Event:
        if (name, rank) not in self.came:
            self.came[name, rank] = self.env.event()
        return self.came[name, rank]

    def _card(self, rank: int, outside: bool, way: str) -> simpy.Resource:
        if (rank, outside, way) not in self.cards:
            self.cards[rank, outside, way] = simpy.Resource(self.env)
        return self.cards[rank, outside, way]

    def _hand_over(self, operation: Operation, rank: int) -> Generator[simpy.Event, object, None]:
        """A message to the rank in the same place of the next stage, or of the one before."""
        work = operation.work
        assert isinstance(work, Exchange)
        (place,) = self.mesh.positions(("pp",))
        there = list(np.unravel_index(rank, self.mesh.shape))
        there[place] = (there[place] + (1 if work.algorithm == "next" else -1)) % self.mesh.shape[place]
        target = int(np.ravel_multi_index(there, self.mesh.shape))
        nbytes = self._amount(work.nbytes, rank)
        if nbytes > 0:
            outside = int(self.layout.node[rank]) != int(self.layout.node[target])
            with self._card(rank, outside, "out").request() as out:
                yield out
                with self._card(target, outside, "in").request() as into:
                    yield into
                    yield self.network.send([(rank, target, nbytes)])
        yield self.env.timeout(self.tree.latency(rank, target) + self.machine.calibration.message_overhead)
        self._arrival(operation.name.removesuffix(".send"), target).succeed()

    def _meet(self, name: str, exchange: Exchange, rank: int) -> Generator[simpy.Event, object, float]:
        """Wait for the group; the last one that comes lets all its messages go."""
        group = self._group(exchange.axes, rank)
        meeting = self.meetings.setdefault((name, group), [0, self.env.event(), 0.0])
        meeting[0] += 1
        if meeting[0] == len(group):
            meeting[2] = self.env.now
            self.env.process(self._collective(exchange, group, meeting[1]))
        yield meeting[1]
        return float(meeting[2])

    def _group(self, axes: tuple[str, ...], rank: int) -> tuple[int, ...]:
        if axes not in self._groups:
            self._groups[axes] = {
                int(member): tuple(map(int, group)) for group in self.layout.groups(axes) for member in group
            }
        return self._groups[axes][rank]

    def _collective(
        self, exchange: Exchange, group: tuple[int, ...], over: simpy.Event
    ) -> Generator[simpy.Event, object, None]:
        overhead = self.machine.calibration.message_overhead
        for stage in self._stages(exchange, group):
            begin, times = self.env.now, stage.times
            sent: dict[float, list[tuple[int, int, float]]] = {}
            for part in stage.messages:
                for source, target, nbytes in part:
                    wait = times * (self.tree.latency(source, target) + overhead)
                    sent.setdefault(wait, []).append((source, target, nbytes))
            yield self.env.all_of([self.env.process(self._late(each, wait)) for wait, each in sent.items()])
            posted = begin + max(sent) + max(0, stage.round.messages(stage.size) - 1) * overhead * times
            yield self.env.timeout(max(0.0, posted - self.env.now))
        over.succeed()

    def _late(self, messages: list[tuple[int, int, float]], wait: float) -> Generator[simpy.Event, object, None]:
        """Messages whose flows begin now, and whose bytes come so much later."""
        yield self.network.send(messages)
        yield self.env.timeout(wait)

    def _stages(self, exchange: Exchange, group: tuple[int, ...]) -> list[Stage]:
        """The messages of a group, step after step."""
        if len(group) == 1:
            return []
        even = exchange.received is None and np.ndim(exchange.nbytes) == 0
        same = exchange.operation, exchange.algorithm, exchange.axes, exchange.nbytes if even else id(exchange)
        key = (*same, group)
        if key not in self._plans:
            self._plans[key] = plan(self.layout, exchange, list(group), self._amount)
            self.kept.append(exchange)
        return self._plans[key]
