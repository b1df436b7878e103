"""A step whose groups drift apart: cells of ranks that go on at their own times and share one network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ...workloads.results.ledger import Ledger
from ...workloads.schedule.operation import Operation
from ...workloads.schedule.work import Exchange, PipelineWork
from ..network.coupling import Kind
from ..network.distinct import distinct
from ..network.flow_network import FlowNetwork
from ..network.links import Array, Index, LinkLoads
from ..network.phases.flow_symmetry import TooManyClasses
from ..network.phases.transfer import Part
from .drift import AT_ONCE, Batches, Begins

if TYPE_CHECKING:
    from .step_engine import Engine, Played


@dataclass(eq=False)
class _Meeting:
    """An exchange of some cells, which waits for all of them: when each of their ranks comes, and what came of it."""

    missing: int
    done: simpy.Event
    ready: dict[int, Array] = field(default_factory=dict)
    begin: dict[int, Array] = field(default_factory=dict)
    end: dict[int, Array] = field(default_factory=dict)


@dataclass(eq=False)
class _Assembly:
    """Cells that meet in exchanges of a kind, and the groups in them, ``[groups, size]`` as places in the cells' joint ranks."""

    cells: list[int]
    ranks: Index
    groups: Index
    rows: Index
    part: Part | None


@dataclass(eq=False)
class _Books:
    """When ranks began and ended an operation, as cells tell."""

    begin: Array | None
    end: Array
    missing: int
    limit: str = "none"
    longest: float = -1.0


class CellEngine:
    """Runs a schedule once, cell by cell.

    A cell holds ranks that are in the same batches of groups, for every kind of exchange whose groups share links. Each cell
    has a process for each stream. What ranks compute, and what groups exchange that share no link, only moves their clocks. An
    exchange of a batch begins on the network when the last of its groups begins, whatever other batches do.
    """

    def __init__(self, whole: Engine, batches: Batches) -> None:
        from .step_engine import CountingEnvironment

        self.whole, self.schedule, self.traffic, self.batches = whole, whole.schedule, whole.traffic, batches
        self.mesh = whole.mesh
        self.env = CountingEnvironment()
        everywhere = {
            kind: batches.of_group.get(kind, np.arange(batches.coupling.groups(kind)))
            for kind in batches.coupling.kinds
        }
        apart = batches.coupling.shared(everywhere)
        self.network = FlowNetwork(self.env, whole.traffic.phases.kinds, apart)
        self.loads = LinkLoads(whole.traffic.phases.kinds)
        self.begins = {kind: Begins.of(batches.coupling.groups(kind)) for kind in batches.of_group}
        self.most_late: dict[Kind, float] = {}
        self.late = False
        of_rank = batches.cells()
        self.cells = [np.flatnonzero(of_rank == cell) for cell in range(int(of_rank.max()) + 1)]
        self.meets = {kind: self._assemblies(kind, of_rank, apart) for kind in batches.coupling.kinds}
        nothing = np.zeros(0, dtype=np.int64)
        every = np.concatenate(self.cells)
        self.everyone = _Assembly(list(range(len(self.cells))), every, nothing[:, None], nothing, None)
        self.ledger = Ledger(self.schedule, whole.ledger.observed, type(whole.ledger.exposure)())
        self.made = None if whole.made is None else np.zeros_like(whole.made)
        self._books: dict[int, _Books] = {}
        self._next = 0
        readers: Counter[int] = Counter()
        outline = self.schedule.outline
        for operation in outline:
            readers.update({o for o in operation.after if outline[o].stream != operation.stream})
        self._readers = readers
        self._ends: dict[tuple[int, int], list[Any]] = {}
        self._waits: dict[tuple[int, int], simpy.Event] = {}
        self._meetings: dict[tuple[int, int], _Meeting] = {}
        self._durations: dict[int, list[Any]] = {}
        self._picks: dict[tuple[int, tuple[int, ...]], Index] = {}
        self._apart_seconds: dict[int, list[Any]] = {}
        self._counted: dict[LinkLoads, float] = {}

    def play(self) -> None:
        """Let all streams of all cells live."""
        for stream in self.schedule.streams:
            mine = [number for number, each in enumerate(self.schedule.outline) if each.stream == stream]
            for cell in range(len(self.cells)):
                self.env.process(self._stream(cell, mine))
        self.env.run()
        for loads, factor in self._counted.items():
            self.loads.plus(loads, factor)

    def notes(self) -> Iterator[str]:
        """What is said of groups that were put together though they began apart."""
        for kind, batch in self.batches.of_group.items():
            played, wanted = int(batch.max()) + 1, self.batches.wanted[kind]
            if played < wanted:
                late = self.most_late.get(kind, 0.0) * 1e3
                yield (
                    f"{wanted} groups along {'+'.join(kind.axes)} share links and do not begin together; they were played as"
                    f" {played}, in which the first waits up to {late:.3g} ms for the last, so the step may come out too long"
                )

    def _assemblies(self, kind: Kind, of_rank: Index, apart: Any) -> list[_Assembly]:
        """Of a kind the cells that meet, ``[cell]``: those of a batch, or those that groups span."""
        groups = self.traffic.layout.groups(kind.axes)
        batched = kind in self.batches.of_group
        label = self.batches.of_group[kind] if batched else _components(of_rank[groups], len(self.cells))
        found: list[_Assembly | None] = [None] * len(self.cells)
        place = np.empty(self.mesh.ranks, dtype=np.int64)
        for batch in range(int(label.max()) + 1):
            rows = np.flatnonzero(label == batch)
            cells = distinct(of_rank[groups[rows]]).tolist()
            ranks = np.concatenate([self.cells[cell] for cell in cells])
            place[ranks] = np.arange(len(ranks))
            part = self.traffic.part(kind.axes, rows, apart) if batched else None
            assembly = _Assembly(cells, ranks, place[groups[rows]], rows, part)
            for cell in cells:
                found[cell] = assembly
        return [each for each in found if each is not None]

    def _stream(self, cell: int, operations: Sequence[int]) -> Generator[simpy.Event, Any, None]:
        """The life of a stream in a cell: its operations, one after another."""
        clock = np.zeros(len(self.cells[cell]))
        for number in operations:
            ready, operation = clock, self.schedule.outline[number]
            for other in operation.after:
                if other in self._readers and self.schedule.outline[other].stream != operation.stream:
                    ready = np.maximum(ready, (yield from self._end_of(other, cell)))
            work = operation.work
            if isinstance(work, Exchange) and self.mesh.size(*work.axes) > 1:
                assembly = self.meets[Kind(operation.stream, work.axes)][cell]
                meeting = yield from self._meet(number, assembly, cell, ready)
                begin, clock = meeting.begin[cell], meeting.end[cell]
                self._done(number, cell, begin, clock)
            elif isinstance(work, PipelineWork):
                meeting = yield from self._meet(number, self.everyone, cell, ready)
                clock = meeting.end[cell]
                self._done(number, cell, None, clock)
            elif isinstance(work, Exchange):
                clock = ready
                self._done(number, cell, ready, clock)
            else:
                clock = ready + self._seconds(number, cell)
                self._done(number, cell, None, clock)
            if number in self._readers:
                self._ends[number, cell] = [clock, self._readers[number]]
                if (number, cell) in self._waits:
                    self._waits.pop((number, cell)).succeed()

    def _end_of(self, number: int, cell: int) -> Generator[simpy.Event, Any, Array]:
        """When the ranks of a cell ended an operation of another stream."""
        key = (number, cell)
        if key not in self._ends:
            if key not in self._waits:
                self._waits[key] = self.env.event()
            yield self._waits[key]
        known = self._ends[key]
        known[1] -= 1
        if not known[1]:
            del self._ends[key]
        end: Array = known[0]
        return end

    def _seconds(self, number: int, cell: int) -> Array | float:
        """What an operation takes on each rank of a cell."""
        if number not in self._durations:
            timed = self.whole.costs.of(self.schedule.operations[number].work)
            seconds = np.asarray(timed.seconds * self.whole.slowness * self.whole.noise.of_operation(number))
            self._durations[number] = [seconds, len(self.cells)]
            self._book(number).limit = timed.limit
        known = self._durations[number]
        seconds, known[1] = known[0], known[1] - 1
        if not known[1]:
            del self._durations[number]
        if seconds.size == 1:
            return float(seconds.item())
        key = (cell, seconds.shape)
        if key not in self._picks:
            places = np.broadcast_to(np.arange(seconds.size).reshape(seconds.shape), self.mesh.shape)
            self._picks[key] = places.reshape(-1)[self.cells[cell]]
        picked: Array = seconds.reshape(-1)[self._picks[key]]
        return picked

    def _meet(self, number: int, assembly: _Assembly, cell: int, ready: Array) -> Generator[simpy.Event, Any, _Meeting]:
        """Wait for the cells that take part; the last to come does what they came for."""
        key = (number, assembly.cells[0])
        meeting = self._meetings.get(key)
        if meeting is None:
            meeting = self._meetings[key] = _Meeting(len(assembly.cells), self.env.event())
        meeting.ready[cell] = ready
        meeting.missing -= 1
        if meeting.missing:
            yield meeting.done
            return meeting
        del self._meetings[key]
        joint = np.concatenate([meeting.ready[each] for each in assembly.cells])
        if isinstance(self.schedule.outline[number].work, PipelineWork):
            begin, end = joint, self._pipeline(number, joint)
        else:
            begin, end = yield from self._exchange(number, assembly, joint)
        ends = np.cumsum([len(self.cells[each]) for each in assembly.cells])[:-1]
        meeting.begin = dict(zip(assembly.cells, np.split(begin, ends), strict=True))
        meeting.end = dict(zip(assembly.cells, np.split(end, ends), strict=True))
        meeting.done.succeed()
        return meeting

    def _exchange(
        self, number: int, assembly: _Assembly, ready: Array
    ) -> Generator[simpy.Event, Any, tuple[Array, Array]]:
        """The exchange of an assembly: begin and end on each of its ranks."""
        operation = self.schedule.operations[number]
        assert isinstance(operation.work, Exchange)
        begin = ready[assembly.groups].max(axis=1)
        if assembly.part is None:
            seconds = self._by_themselves(number, operation.work, len(assembly.rows))
            end = begin + (seconds if np.size(seconds) == 1 else seconds[assembly.rows])
        else:
            end = yield from self._together(number, operation, assembly, begin)
        begins, ends = np.empty(len(ready)), np.empty(len(ready))
        begins[assembly.groups], ends[assembly.groups] = begin[:, None], end[:, None]
        return begins, ends

    def _by_themselves(self, number: int, exchange: Exchange, groups: int) -> Array:
        """Seconds of each group of an exchange whose groups share no link with any other: of all at once, worked out once."""
        if number not in self._apart_seconds:
            total: Array = np.zeros(1)
            for transfer in self.traffic.transfers(exchange):
                taken = self.whole.taken(exchange, transfer, transfer.demand.alone[0])
                seconds = np.asarray(taken.seconds)
                total = total + (seconds if seconds.size == 1 else self._flat(seconds, exchange))
                self._limited(number, taken.longest, taken.limit)
                self._load(transfer)
            self._apart_seconds[number] = [total.reshape(-1), self.mesh.ranks // self.mesh.size(*exchange.axes)]
        known = self._apart_seconds[number]
        total, known[1] = known[0], known[1] - groups
        if not known[1]:
            del self._apart_seconds[number]
        return total

    def _flat(self, seconds: Array, exchange: Exchange) -> Array:
        """Seconds of each group, from an array over the mesh of size 1 along its axes."""
        along = self.mesh.positions(exchange.axes)
        shape = tuple(1 if place in along else length for place, length in enumerate(self.mesh.shape))
        return np.broadcast_to(seconds, shape).reshape(-1)

    def _together(
        self, number: int, operation: Operation, assembly: _Assembly, begin: Array
    ) -> Generator[simpy.Event, Any, Array]:
        """A batch on the network: when each of its groups ends."""
        exchange, end = operation.work, begin
        assert isinstance(exchange, Exchange)
        last = float(begin.max())
        if last > self.env.now:
            yield self.env.timeout(last - self.env.now)
        self.late |= last < self.env.now * (1 - AT_ONCE)
        for transfer in self.traffic.transfers(exchange, assembly.part):
            if len(end) > 1:
                self._note(Kind(operation.stream, exchange.axes), assembly.rows, end, float(end.max()))
            started = self.env.now
            finish = yield from self.network.carry(transfer.demand, transfer.factor is not None)
            seconds, limit = transfer.group_seconds(finish)
            if isinstance(seconds, np.ndarray):
                seconds = seconds.reshape(len(begin), -1).max(axis=1)
            longest = float(np.max(seconds))
            self._limited(number, longest, limit)
            self._load(transfer)
            end = end + seconds
            if (left := started + longest - self.env.now) > 0:
                yield self.env.timeout(left)
        if len(end) > 1:
            self.begins[Kind(operation.stream, exchange.axes)].add_ends(assembly.rows, end)
        return end

    def _note(self, kind: Kind, rows: Index, begin: Array, last: float) -> None:
        """Groups of a batch began, at once or not."""
        begins = np.full(len(self.begins[kind].late), last)
        begins[rows] = begin
        self.begins[kind].add(begins)
        self.most_late[kind] = max(self.most_late.get(kind, 0.0), float(last - begin.min()))

    def _limited(self, number: int, longest: float, limit: str) -> None:
        """What held a transfer back, of which the longest counts."""
        books = self._book(number)
        if longest > books.longest:
            books.longest, books.limit = longest, limit

    def _load(self, transfer: Any) -> None:
        """Count the bytes on every link."""
        factor = 1.0 if transfer.factor is None else transfer.factor
        if transfer.factor is None:
            self.loads.plus(transfer.loads, 1.0)
        else:
            self._counted[transfer.loads] = self._counted.get(transfer.loads, 0.0) + factor

    def _pipeline(self, number: int, ready: Array) -> Array:
        """Stages over their blocks; ranks that end early go on early."""
        every = np.empty(self.mesh.ranks)
        every[self.everyone.ranks] = ready
        passed, loads, events = self.whole.staged(number, every.reshape(self.mesh.shape))
        self._passed = passed
        self.loads.plus(loads, 1.0)
        self.env.events += events
        return np.broadcast_to(passed.end, self.mesh.shape).reshape(-1)[self.everyone.ranks]

    def _book(self, number: int) -> _Books:
        if number not in self._books:
            exchange = isinstance(self.schedule.outline[number].work, Exchange)
            nothing = np.zeros(self.mesh.ranks)
            self._books[number] = _Books(np.zeros_like(nothing) if exchange else None, nothing, self.mesh.ranks)
        return self._books[number]

    def _done(self, number: int, cell: int, begin: Array | None, end: Array) -> None:
        """Ranks of a cell are done with an operation; what all ranks are done with goes into the ledger, in order."""
        books, ranks = self._book(number), self.cells[cell]
        books.end[ranks] = end
        if books.begin is not None and begin is not None:
            books.begin[ranks] = begin
        books.missing -= len(ranks)
        while self._next in self._books and not self._books[self._next].missing:
            self._enter(self._next, self._books.pop(self._next))
            self._next += 1

    def _enter(self, number: int, books: _Books) -> None:
        from ...workloads.lowering.pipeline_blocks import hands_on

        operation = self.schedule.outline[number]
        ready = self.ledger.ready(number)
        if isinstance(operation.work, PipelineWork):
            self.ledger.passed(number, self._passed)
            return
        end = books.end.reshape(self.mesh.shape)
        begin = ready if books.begin is None else books.begin.reshape(self.mesh.shape)
        self.ledger.done(number, ready, begin, end, books.limit)
        if self.made is not None and hands_on(operation):
            self.made = np.maximum(self.made, end)


def _components(cells: Index, count: int) -> Index:
    """For each group, ``cells[group, member]``, the number of the set of cells that it and groups with cells in common span."""
    of_cell = np.arange(count)
    while True:
        least = of_cell[cells].min(axis=1)
        joined = of_cell.copy()
        np.minimum.at(joined, cells, np.broadcast_to(least[:, None], cells.shape))
        if (joined == of_cell).all():
            return np.unique(least, return_inverse=True)[1]
        of_cell = joined


def played_apart(whole: Engine) -> Played | None:
    """The step of an engine cell by cell; None where its groups share no links, or are too many to be told apart."""
    from .step_engine import Played

    batches, tries = whole.drift.batches(whole.traffic), 4
    found = None
    while batches is not None and tries:
        engine = CellEngine(whole, batches)
        try:
            engine.play()
        except TooManyClasses:
            break
        events = whole.env.events + engine.env.events
        found = Played(engine.ledger, engine.loads, events, engine.made, tuple(engine.notes()))
        batches, tries = batches.finer(engine.begins, engine.late), tries - 1
    return found
