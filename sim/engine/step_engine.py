"""The engine: SimPy processes, one for each stream, that carry the clocks of all ranks as one array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import simpy
from numpy.typing import NDArray

from ...hardware.machine import Machine
from ...workloads.lowering.pipeline_blocks import hands_on
from ...workloads.results.ledger import Ledger, Passed
from ...workloads.results.time_breakdown import Exposure, RankExposure
from ...workloads.results.trace import TraceRow
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.operation import Block, Operation
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange, PipelineWork, Work
from ..network.links import LinkLoads
from ..network.phases.transfer import Transfer
from ..network.phases.transfers import Traffic
from ..network.shared_network import SharedNetwork
from .block_batches import BlockBatch
from .drift import Drift
from .noise import Noise

if TYPE_CHECKING:
    from ...workloads.pipelines import Kind
    from .stage_transfers import Handover
    from .stages import PipelineStages

Array = NDArray[np.float64]


MOST_KEPT = 1 << 20
"""Ranks of exchanges with the network to themselves that are kept: those of a stage's passes come again soon or never."""


class CountingEnvironment(simpy.Environment):
    """A SimPy environment that counts its events."""

    events = 0

    def schedule(self, *args: Any, **kwargs: Any) -> None:
        """Schedule an event, as SimPy does, and count it."""
        self.events += 1
        super().schedule(*args, **kwargs)


@dataclass(frozen=True)
class BlockRun:
    """One run of a block of operations by itself, by ranks that begin together.

    ``made`` are the seconds of each rank until what it passes on is there, ``seconds`` those until all its streams are done, and
    ``parts`` what these went on, by phase and category; ``rows`` are those of a trace from the block's begin on, ``loads``
    the bytes of all ranks on every link.
    """

    made: Array
    seconds: Array
    parts: Mapping[tuple[str, str], Array]
    rows: Sequence[TraceRow]
    loads: LinkLoads
    events: int


@dataclass
class StepResult:
    """What one simulated step gave; times in seconds from its start."""

    seconds: float
    exposed: dict[str, dict[str, float]]  # [phase][category], means over ranks that sum to ``seconds``
    rows: Sequence[TraceRow]
    loads: LinkLoads
    events: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Played:
    """A step or a block that was played: its books, not closed yet, and when all that a block passes on was there (``made``)."""

    ledger: Ledger
    loads: LinkLoads
    events: int
    made: Array | None
    notes: tuple[str, ...] = ()


class Taken(NamedTuple):
    """Seconds of a transfer (a float, or an array over the mesh), those of the slowest group, and what held it back."""

    seconds: float | Array
    longest: float
    limit: str


@dataclass(frozen=True)
class Exchanged:
    """An exchange that had the network to itself, transfer by transfer.

    Bytes on links with their factors, seconds, and whether groups share no link.
    """

    loads: Sequence[tuple[LinkLoads, float]]
    seconds: Sequence[float | Array]
    apart: Sequence[bool]

    def on(self, kind: str, count: int) -> Array:
        """Its bytes on the ``count`` links of a kind."""
        found = np.zeros(count)
        for each, factor in self.loads:
            if kind in each.loads:
                found += factor * each.loads[kind]
        return found


class Engine:
    """Runs a schedule once on a machine, all ranks starting at zero.

    Every stream of the schedule is a SimPy process. It waits for what an operation waits for, moves the clocks of all
    ranks (an array that broadcasts over the mesh, as large as the ranks really differ), and sleeps until the last rank
    is done. A collective begins for a group when its last member has come; its bytes share the network with what other
    streams send meanwhile.

    All groups of a collective load the network as one phase, which begins when the last group begins. Where groups that
    share links turn out not to begin together, the step is played once more, cell by cell (:class:`~.cells.CellEngine`).
    """

    meet = True
    """Whether what is under way at once slows each other."""

    def __init__(
        self,
        machine: Machine,
        schedule: Schedule,
        traffic: Traffic,
        noise: Noise,
        observed: Mapping[str, tuple[int, ...]],
        exposure: Exposure | None = None,
        costs: Costs | None = None,
    ) -> None:
        self.machine, self.schedule, self.traffic, self.noise = machine, schedule, traffic, noise
        self.mesh = schedule.mesh
        self.slowness = noise.slowness()
        self.even = not noise.jitter and isinstance(self.slowness, float) and self.slowness == 1.0
        self.ledger = Ledger(schedule, observed, exposure)
        self.env = CountingEnvironment()
        self.network = SharedNetwork(self.env)
        self.loads = LinkLoads(traffic.phases.kinds)
        self.shared: dict[LinkLoads, float] = {}
        self.alone = (
            len(schedule.senders) <= 1
        )  # exchanges of one stream follow each other: the network is never shared
        self.repeated: dict[Hashable, int] = {}  # how often unequal bytes are sent again
        if self.alone:
            self.repeated = Counter(
                schedule.sent(number)
                for number, each in enumerate(schedule.outline)
                if isinstance(each.work, Exchange) and not each.work.even
            )
        self.others: dict[Hashable, tuple[list[tuple[Taken, bool]], int]] = {}  # what those take, and how many
        self.known: dict[Transfer, Taken] = {}
        self.exchanged: dict[Hashable, tuple[Exchange, Exchanged]] = {}
        self.costs = costs or Costs(machine, schedule.layout.ranks_per_node, schedule.layout.present)
        self.finished = [self.env.event() for _ in schedule.operations]
        self.made: Array | None = None  # of a block: when all that it passes on was there
        self.latest: tuple[Array | None, float] = (
            None,
            0.0,
        )  # the clocks that were last waited for, and the last of them
        self.drift = Drift.of(schedule)
        self.stages: dict[int, PipelineStages] = {}
        self.of_blocks: list[str] = []  # notes of the blocks of a pipeline

    def run(self) -> StepResult:
        """Simulate the step."""
        played = self.played()
        exposed, rows = played.ledger.exposure.seconds, played.ledger.rows
        notes = tuple(dict.fromkeys([*played.notes, *self.of_blocks]))
        seconds = played.ledger.close()
        seconds += self._backlog(seconds, played)
        return StepResult(seconds, exposed, rows, played.loads, played.events, notes)

    def played(self) -> Played:
        """Play the step: as one, and where that is not enough cell by cell."""
        self._play()
        self._add_up()
        self.drift.coarse = self.network.coarse and self.traffic.depth == "fluid"
        if self.drift.apart:
            from .cells import played_apart

            if (apart := played_apart(self)) is not None:
                return apart
        notes = tuple(self.drift.too_many(self.traffic)) if self.drift.apart else ()
        return Played(self.ledger, self.loads, self.env.events, self.made, notes)

    def _backlog(self, seconds: float, played: Played) -> float:
        """What links still have to carry where exchanges run beside a pipeline, whose blocks do not meet them on the network.

        The step lasts as long as its busiest link at least; the wait counts for these exchanges.
        """
        operations = self.schedule.outline
        beside = [each for each in operations if isinstance(each.work, Exchange)]
        if not any(isinstance(each.work, PipelineWork) for each in operations):
            return 0.0
        return self._waited(seconds, played, beside)

    def _waited(self, seconds: float, played: Played, exchanges: Sequence[Operation]) -> float:
        """What the busiest link has left after some seconds; it counts for the last of some exchanges."""
        if not exchanges:
            return 0.0
        busiest = max((float(busy.max()) for _, busy in played.loads.busy()), default=0.0) - self.traffic.costs.burst
        left, last = max(0.0, busiest - seconds), exchanges[-1]
        played.ledger.exposure.spend(last.category, last.phase, np.full([1] * len(self.mesh.shape), left))
        return left

    def _play(self) -> None:
        """Let all streams live."""
        for stream in self.schedule.streams:
            self.env.process(self._stream(stream, self.schedule.by_stream[stream]))
        self.env.run()

    def _stream(self, stream: str, operations: Sequence[int]) -> Generator[simpy.Event, Any, None]:
        """The life of a stream: its operations, one after another."""
        for number in operations:
            operation = self.schedule.operations[number]
            for other in operation.after:
                if self.finished[other].callbacks is not None:  # else it is past, and nothing is waited for
                    yield self.finished[other]
            ready = self.ledger.ready(number)
            if isinstance(operation.work, PipelineWork):
                yield from self._pipeline(number, ready)
                continue
            took = None
            if isinstance(operation.work, Exchange):
                begin, end, limit = yield from self._communicate(number, operation.work, ready)
            else:
                begin, took, limit = ready, *self._computed(number, operation.work)
                end = begin + took
                yield self._until(end, begin, took)
            self.ledger.done(number, ready, begin, end, limit, took)
            if self.made is not None and hands_on(operation):
                self.made = np.maximum(self.made, end)
            self.finished[number].succeed()

    def _computed(self, number: int, work: Work) -> tuple[Array, str]:
        """Seconds of what ranks compute, with all axes of the mesh, and what limits them."""
        timed = self.costs.of(work)
        seconds = np.asarray(timed.seconds)
        if not self.even:
            seconds = np.asarray(seconds * self.slowness * self.noise.of_operation(number))
        return (seconds.reshape([1] * len(self.mesh.shape)) if seconds.size == 1 else seconds), timed.limit

    def _communicate(
        self, number: int, exchange: Exchange, ready: Array
    ) -> Generator[simpy.Event, Any, tuple[Array, Array, str]]:
        begin, stream = self._joint(exchange, ready), self.schedule.outline[number].stream
        yield self._until(begin)
        if self.alone:
            end, limit, longest = begin, "none", 0.0
            for taken, apart in self._by_themselves(number, exchange):
                if not apart:
                    self.drift.add(stream, exchange.axes, end)
                end = end + taken.seconds
                if taken.longest > longest:
                    longest, limit = taken.longest, taken.limit
            yield self._until(end)
            return begin, end, limit
        end, limit, longest = begin, "none", 0.0
        for transfer in self.traffic.transfers(exchange):
            self.drift.add(stream, exchange.axes, end)
            started = self.env.now
            finish = yield from self.network.carry(transfer.demand)
            taken = self.taken(exchange, transfer, finish)
            end = end + taken.seconds
            if taken.longest > longest:
                longest, limit = taken.longest, taken.limit
            self._load(transfer)
            yield self.env.timeout(max(0.0, started + taken.longest - self.env.now))
        return begin, end, limit

    def _joint(self, exchange: Exchange, ready: Array) -> Array:
        """When the last member of each group is ready."""
        along = tuple(at for at in self.mesh.positions(exchange.axes) if ready.shape[at] > 1)
        begin: Array = ready.max(axis=along, keepdims=True)
        return begin

    def _by_themselves(self, number: int, exchange: Exchange) -> list[tuple[Taken, bool]]:
        """The transfers of an exchange that has the network to itself: what each takes, and whether groups share no link.

        Those of unequal bytes are worked out once for all exchanges of a step that send the same, and their bytes are counted
        for all of them.
        """
        key = self.schedule.sent(number)
        if key in self.others:
            found, left = self.others.pop(key)
        else:
            found, left = [], 1 if exchange.even else self.repeated.get(key, 1)
            for transfer in self.traffic.transfers(exchange):
                if transfer.factor is None:
                    self.loads.plus(transfer.loads, float(left))
                else:
                    self._load(transfer)
                found.append((self._by_itself(exchange, transfer), transfer.demand.apart))
        if left > 1:
            self.others[key] = found, left - 1
        return found

    def _by_itself(self, exchange: Exchange, transfer: Transfer) -> Taken:
        """What a transfer takes where nothing else can be on the network; even ones repeat."""
        if transfer.factor is None:
            return self.taken(exchange, transfer, transfer.demand.alone[0])
        if transfer not in self.known:
            self.known[transfer] = self.taken(exchange, transfer, transfer.demand.alone[0])
        return self.known[transfer]

    def taken(self, exchange: Exchange, transfer: Transfer, finish: Array) -> Taken:
        """What a transfer takes, given what its flow classes take: the slowest of an axis' groups counts for all of it."""
        mesh, (seconds, decided) = self.mesh, transfer.group_seconds(finish)
        if isinstance(seconds, np.ndarray):
            groups = mesh.ranks // mesh.size(*exchange.axes)
            seconds = mesh.spread(seconds.reshape(groups, -1).max(axis=1), exchange.axes)
        return Taken(seconds, float(np.max(seconds)), decided)

    def _pipeline(self, number: int, ready: Array) -> Generator[simpy.Event, Any, None]:
        """Stages over their blocks; ranks that end early go on early."""
        passed, loads, events = self.staged(number, ready)
        self.ledger.passed(number, passed)
        self.loads.plus(loads, 1.0)
        self.env.events += events
        yield self._until(passed.end)
        self.finished[number].succeed()

    def staged(self, number: int, ready: Array) -> tuple[Passed, LinkLoads, int]:
        """A pipeline from ``ready`` on: what it gave, its bytes on links and its events. Blocks are run once."""
        from .stages import PipelineStages

        if number not in self.stages:
            work = self.schedule.operations[number].work
            assert isinstance(work, PipelineWork)
            self.stages[number] = PipelineStages(work, self.machine, self.traffic, self, self.ledger.observed)
        stages = self.stages[number]
        return stages.run(ready), stages.loads, stages.events

    def block(self, number: int, operations: Block) -> BlockRun:
        """A block of a pipeline by itself, on the same network."""
        return self._inner(number, operations, self.traffic, self.ledger.observed)

    def stage_block(self, stage: int, number: int, operations: Block, traffic: Traffic) -> BlockRun:
        """The same on the ranks of one stage, which ``traffic`` knows, while the others are silent."""
        (axis,) = self.mesh.positions(("pp",))
        mine = {name: rank for name, rank in self.ledger.observed.items() if rank[axis] == stage}
        observed = {name: (*rank[:axis], 0, *rank[axis + 1 :]) for name, rank in mine.items()}
        return self._inner(number, operations, traffic, observed)

    def _inner(
        self, number: int, operations: Block, traffic: Traffic, observed: Mapping[str, tuple[int, ...]]
    ) -> BlockRun:
        noise = replace(self.noise.within(number), layout=traffic.layout)
        schedule = Schedule(traffic.layout, operations)
        inner = self.within(schedule, traffic, noise, observed)
        inner.made = np.zeros([1] * len(self.mesh.shape))
        played = inner.played()
        self.of_blocks += played.notes
        seconds, exposure = played.ledger.settle(), played.ledger.exposure
        assert played.made is not None and isinstance(exposure, RankExposure)
        return BlockRun(played.made, seconds, exposure.parts, played.ledger.rows, played.loads, played.events)

    def within(
        self, schedule: Schedule, traffic: Traffic, noise: Noise, observed: Mapping[str, tuple[int, ...]]
    ) -> Engine:
        """An engine for a block."""
        return type(self)(self.machine, schedule, traffic, noise, observed, RankExposure(), self.costs)

    def handover(self, activations: Exchange, kind: Kind, wraps: bool, sends: Sequence[int] | None = None) -> Handover:
        """Messages between the stages of a pipeline, which all send at once."""
        from .stage_transfers import Handover

        return Handover.of(self.traffic, activations, kind, wraps, sends)

    def blocks(self, numbers: Sequence[int], blocks: Sequence[Block], many: bool = False) -> list[BlockRun]:
        """The same of several, which have one form (:class:`~.block_batches.Forms`), of a pipeline that has ``many`` or not."""
        return BlockBatch(self, numbers, blocks, many).run()

    def by_itself(self, exchange: Exchange) -> Exchanged:
        """An exchange with the network to itself; even ones, and those on the same bytes, repeat."""
        key = exchange.sends
        if key not in self.exchanged:
            transfers = self.traffic.transfers(exchange)
            seconds = [self._by_itself(exchange, each).seconds for each in transfers]
            loads = [(each.loads, 1.0 if each.factor is None else each.factor) for each in transfers]
            self.exchanged[key] = exchange, Exchanged(loads, seconds, [each.demand.apart for each in transfers])
            if len(self.exchanged) * self.mesh.ranks > MOST_KEPT:
                del self.exchanged[next(iter(self.exchanged))]
        return self.exchanged[key][1]

    def _load(self, transfer: Transfer) -> None:
        """Count the bytes on every link; those of transfers that share their loads are added up once, at the end."""
        if transfer.factor is None:
            self.loads.plus(transfer.loads, 1.0)
            return
        self.shared[transfer.loads] = self.shared.get(transfer.loads, 0.0) + transfer.factor

    def _until(self, clocks: Array, before: Array | None = None, after: Array | None = None) -> simpy.Event:
        """The event of the last of these clocks, which may be said to be others' ``before`` and so much ``after`` them."""
        if before is not None and before is self.latest[0] and after is not None and after.size == 1:
            last = self.latest[1] + float(after.item())
        else:
            last = float(clocks.max())
        self.latest = clocks, last
        return self.env.timeout(max(0.0, last - self.env.now))

    def _add_up(self) -> None:
        """Add what transfers share to the bytes on links."""
        for loads, factor in self.shared.items():
            self.loads.plus(loads, factor)
