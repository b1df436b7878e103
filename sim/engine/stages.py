"""A pipeline in the engine: every block once, then the order of its stages over the blocks' seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ...hardware.machine import Machine
from ...workloads.pipelines import PIPELINES, Kind, Order, Slot, part_of, place_of
from ...workloads.results.ledger import Passed
from ...workloads.results.trace import Rows
from ...workloads.schedule.work import Exchange, PipelineWork
from ..network.links import Array, LinkLoads
from ..network.phases.transfers import Traffic
from .block_batches import AT_ONCE, MANY, Forms
from .pipeline_timing import Seconds, Timing, play, play_endless
from .pipeline_trace import stage_rows
from .stage_cards import Slowing
from .stage_crowds import StageCrowds
from .stage_transfers import Handover, SharedCards

if TYPE_CHECKING:
    from .step_engine import BlockRun, Engine

PASS = {"F": 0, "B": 1, "W": 2}
PHASE = {"F": "forward", "B": "backward", "W": "backward"}


@dataclass(frozen=True)
class PipelineStages:
    """The pipeline of a step on a machine.

    Blocks are run on demand by the ``engine``, once each and those of one form together, as if all stages did them at once; a
    stage takes its own ranks' seconds, arrays over the mesh with size 1 along pp, or floats where they are alike. Where exchanges
    of different stages meet on links, each stage's are run by themselves, and those that run at once slow each other
    (:mod:`.stage_crowds`). A message is timed where all stages send at once, as they do while a pipeline is full. Of an endless
    pipeline one step is played that others went before.
    """

    work: PipelineWork
    machine: Machine
    traffic: Traffic
    engine: Engine
    observed: Mapping[str, tuple[int, ...]]
    _runs: dict[int, BlockRun] = field(default_factory=dict)
    _seconds: dict[tuple[int, int], Seconds] = field(default_factory=dict)
    _making: dict[tuple[int, int], Seconds] = field(default_factory=dict)
    _shares: dict[tuple[int, int, int, bool], Slowing] = field(default_factory=dict)

    def run(self, ready: Array) -> Passed:
        """Play the pipeline from ``ready`` on."""
        timing, first, stages = *self.played, range(self.work.stages)
        parts: dict[tuple[str, str], list[Seconds]] = {}
        for stage in stages:
            for key, spent in self._parts(stage).items():
                parts.setdefault(key, [0.0] * self.work.stages)[stage] = spent
        seconds = self._joined([timing.parts(stage, first[stage]).seconds for stage in stages])
        backlog = self._busiest - float(seconds.max())
        if backlog > 0:  # cables that several stages share, and that have not carried all by then
            key = PHASE["B"], "pipeline_transfer"
            parts[key] = [spent + backlog for spent in parts.get(key, [0.0] * self.work.stages)]
            seconds = seconds + backlog
        endless = PIPELINES.find(self.work.name).asynchronous
        return Passed(
            end=ready + seconds,
            parts={key: self._joined(each) for key, each in parts.items()},
            late=np.zeros_like(seconds) if endless or self.axis is None else self._latest(seconds) - seconds,
            rows=Rows(lambda: stage_rows(self, ready)),
        )

    def _latest(self, seconds: Array) -> Array:
        """Of each rank the last of those in its place in all stages; what others in a stage take longer is no bubble."""
        latest: Array = seconds.max(axis=self.axis, keepdims=True)
        return latest

    @cached_property
    def loads(self) -> LinkLoads:
        """Bytes of all that was run, on every link."""
        found = LinkLoads(self.traffic.phases.kinds)
        apart = {number: times for number, times in self._times.items() if len(set(times)) > 1}
        for number, times in self._times.items():
            if number not in apart:
                found.plus(self.block_run(number).loads, float(times[0]))
        self._count_apart(found, apart)
        for kind in self.handovers:
            found.plus(self._handover(kind, self._sends(kind)).loads, 1.0)
        return found

    @property
    def events(self) -> int:
        """Events of all that was run."""
        slots = sum(len(order) - first for order, first in zip(self.orders, self.first, strict=True))
        return slots + sum(self.block_run(number).events * sum(times) for number, times in self._times.items())

    @property
    def _busiest(self) -> float:
        """Seconds that the busiest link needs for its bytes, less those that pass at once: no pipeline is shorter."""
        return max((float(seconds.max()) for _, seconds in self.loads.busy()), default=0.0) - self.burst

    @cached_property
    def played(self) -> tuple[Timing, list[int]]:
        """Clocks of all slots, and the place in each stage's order at which the step begins."""
        pipeline, work = PIPELINES.find(self.work.name), self.work
        sharing = self if self.handovers and self.engine.meet else None
        asked = self._duration, self._transfer, self._made, sharing
        if pipeline.asynchronous:
            return play_endless(pipeline, work.stages, work.micro_batches, *asked)
        orders = pipeline.orders(work.stages, work.micro_batches, work.chunks)
        return play(orders, *asked, folded=pipeline.folded), [0] * work.stages

    @property
    def orders(self) -> Sequence[Order]:
        """What each stage does in turn."""
        return self.played[0].orders

    @property
    def first(self) -> list[int]:
        """The place in each stage's order at which the step begins."""
        return self.played[1]

    @cached_property
    def handovers(self) -> dict[Kind, Handover]:
        """Messages between stages, forward and backward; none with one stage."""
        if self.work.activations is None:
            return {}
        return {"F": self._handover("F"), "B": self._handover("B")}

    def block(self, stage: int, slot: Slot) -> int:
        """The number of a slot's block."""
        numbers = self.work.uses[slot.chunk * self.work.stages + stage][PASS[slot.kind]]
        return numbers[slot.micro_batch % self.work.micro_batches] if len(numbers) > 1 else numbers[0]

    def block_run(self, number: int) -> BlockRun:
        """What a block takes."""
        if number not in self._runs:
            together = self._together(number)
            if len(together) == 1:
                self._runs[number] = self.engine.block(number, self.work.blocks[number])
            else:
                blocks = [self.work.blocks[each] for each in together]
                runs = self.engine.blocks(together, blocks, len(self.work.blocks) >= MANY)
                self._runs.update(zip(together, runs, strict=True))
        return self._runs[number]

    def _together(self, number: int) -> list[int]:
        """Numbers of the blocks that are run with one: of its form, from it on, as many as a batch may have."""
        common = self._forms[number]
        most = max(1, AT_ONCE // self.traffic.layout.mesh.ranks)
        if common is None:
            return [number]
        alike = (each for each in self._alike[common] if each >= number and each not in self._runs)
        return list(islice(alike, most))

    @cached_property
    def _forms(self) -> list[Hashable | None]:
        forms = Forms()
        return [forms.of(block) for block in self.work.blocks]

    @cached_property
    def _alike(self) -> dict[Hashable, list[int]]:
        """Numbers of the blocks of each form."""
        found: dict[Hashable, list[int]] = {}
        for number, each in enumerate(self._forms):
            found.setdefault(each, []).append(number)
        return found

    def stage_run(self, stage: int, number: int) -> BlockRun:
        """What a block takes on a stage that meets no other."""
        return self.crowds.alone(stage, number) if self.crowds else self.block_run(number)

    @cached_property
    def crowds(self) -> StageCrowds | None:
        """Stages whose own exchanges meet; None where none do."""
        if not self.handovers or not self.engine.meet:
            return None
        engine = self.engine
        return StageCrowds.of(self.work, self.traffic, self.axis, engine.stage_block, engine.of_blocks.append)

    def stretch(self, running: Sequence[tuple[int, Slot] | None]) -> list[float]:
        """By how much longer stages take that run these slots at once."""
        assert self.crowds is not None
        return self.crowds.stretch([each and (each[0], self.block(*each)) for each in running])

    def source(self, stage: int, slot: Slot) -> tuple[int, int] | None:
        """The stage that makes a slot's input, and the place at which it does; None where no other stage does."""
        last, stages, folded = self.work.stages * self.work.chunks - 1, self.work.stages, self._folded
        part = part_of(stage, slot.chunk, stages, folded) + (1 if slot.kind == "B" else -1)
        if slot.kind == "W" or not 0 <= part <= last:
            return None
        other, chunk = place_of(part, stages, folded)
        if other == stage:
            return None
        return other, self._places[other][slot._replace(chunk=chunk)]

    @cached_property
    def _places(self) -> list[dict[Slot, int]]:
        """Where each slot stands in the order of its stage."""
        return [{slot: place for place, slot in enumerate(order)} for order in self.orders]

    def _duration(self, stage: int, slot: Slot) -> Seconds:
        key = stage, self.block(stage, slot)
        seconds = self._seconds.get(key)
        if seconds is None:
            seconds = self._seconds[key] = self._at(self.stage_run(stage, key[1]).seconds, stage)
        return seconds

    def _made(self, stage: int, slot: Slot) -> Seconds:
        key = stage, self.block(stage, slot)
        seconds = self._making.get(key)
        if seconds is None:
            seconds = self._making[key] = self._at(self.stage_run(stage, key[1]).made, stage)
        return seconds

    @cached_property
    def _folded(self) -> bool:
        return PIPELINES.find(self.work.name).folded

    @property
    def _wraps(self) -> bool:
        """Whether the last stage hands on to the first."""
        return self.work.chunks > 1 and not self._folded

    def way(self, sender: int, receiver: int, kind: Kind) -> Kind:
        """The kind whose messages go from stage to stage like these: folded chunks send activations back, gradients on."""
        return kind if not self._folded else "F" if receiver > sender else "B"

    def _transfer(self, sender: int, receiver: int, kind: Kind) -> Seconds:
        return self._at(self.handovers[self.way(sender, receiver, kind)].seconds, sender)

    def wire(self, sender: int, receiver: int, kind: Kind) -> tuple[Seconds, int]:
        """Seconds of a message in which it keeps cards busy, and its way."""
        return self._at(self.handovers[self.way(sender, receiver, kind)].wire, sender), self._cards.way(
            sender, receiver
        )

    @property
    def burst(self) -> float:
        """Seconds of messages that pass at once through a card that was idle."""
        return self.traffic.costs.burst

    def share(self, stage: int, slot: Slot, way: int, out: bool) -> Slowing:
        """How a slot's own exchanges and messages slow each other that its stage sends, or receives."""
        number = self.block(stage, slot)
        key = stage, number, way, out
        if key not in self._shares:
            seconds, loads = float(np.max(self._duration(stage, slot))), self.block_run(number).loads
            met = self.crowds.links if self.crowds else {}
            self._shares[key] = self._cards.share(stage, way, out, loads, seconds, met)
        return self._shares[key]

    @cached_property
    def _cards(self) -> SharedCards:
        assert self.work.activations is not None and self.axis is not None
        return SharedCards(self.traffic, self.work.activations, self.handovers, self._wraps, self.axis)

    def _handover(self, kind: Kind, sends: Sequence[int] | None = None) -> Handover:
        assert self.work.activations is not None
        return self.engine.handover(self.work.activations, kind, self._wraps, sends)

    def _sends(self, kind: Kind) -> list[int]:
        """How often each stage sends a message that goes the way of a kind within the step: where its slot is another's input."""
        found = [0] * self.work.stages
        for stage, (order, first) in enumerate(zip(self.orders, self.first, strict=True)):
            for (made, chunk), count in Counter((slot.kind, slot.chunk) for slot in order[first:]).items():
                receiver = self._receiver(stage, made, chunk)
                if receiver not in (None, stage) and self.way(stage, receiver or 0, made) == kind:
                    found[stage] += count
        return found

    def _receiver(self, stage: int, kind: Kind, chunk: int) -> int | None:
        """The stage that needs what a slot makes; None where it is nobody's input."""
        part = part_of(stage, chunk, self.work.stages, self._folded) + (1 if kind == "F" else -1)
        if kind == "W" or not 0 <= part < self.work.stages * self.work.chunks:
            return None
        return place_of(part, self.work.stages, self._folded)[0]

    @cached_property
    def _counts(self) -> list[Counter[int]]:
        """How often each stage runs each block within the step."""
        return [
            Counter(self.block(stage, slot) for slot in order[first:])
            for stage, (order, first) in enumerate(zip(self.orders, self.first, strict=True))
        ]

    @property
    def _times(self) -> dict[int, list[int]]:
        """The same by block, a number for each stage."""
        return {number: [count[number] for count in self._counts] for number in sorted(set().union(*self._counts))}

    def _parts(self, stage: int) -> dict[tuple[str, str], Seconds]:
        """Where the seconds of a stage's ranks went, by phase and category."""
        found: dict[tuple[str, str], Seconds] = {}
        for number, count in self._counts[stage].items():
            for key, seconds in self.stage_run(stage, number).parts.items():
                found[key] = found.get(key, 0.0) + count * self._at(seconds, stage)
        for kind, (transfer, bubble) in self.played[0].waits(stage, self.first[stage]).items():
            for category, waited in (("pipeline_transfer", transfer), ("pipeline_bubble", bubble)):
                key = PHASE[kind], category
                found[key] = found.get(key, 0.0) + waited
        return found

    def _count_apart(self, loads: LinkLoads, apart: Mapping[int, Sequence[int]]) -> None:
        """Add the bytes of blocks that stages run unequally often; layers repeat, and so do bytes forward and backward."""
        found: dict[tuple[object, ...], tuple[Exchange, Array]] = {}
        for number, times in apart.items():
            often = np.array(times, dtype=np.float64).reshape(self.work.along)
            for operation in self.work.blocks[number]:
                work = operation.work
                if isinstance(work, Exchange):
                    key = (work,) if work.even else (work.algorithm, work.axes, id(work.nbytes), id(work.received))
                    before = found.get(key)
                    found[key] = work, often if before is None else before[1] + often
        alike: dict[tuple[object, ...], list[tuple[Exchange, Array]]] = {}
        for work, often in found.values():
            if work.even:
                loads.plus(self._counter.weighted(work, often), 1.0)
            else:
                ranks = (often != 0).tobytes()  # of which stages
                alike.setdefault((work.operation, work.algorithm, work.axes, ranks), []).append((work, often))
        most = max(1, AT_ONCE // self.traffic.layout.mesh.ranks)
        for each in alike.values():
            for at in range(0, len(each), most):
                self._count_at_once(loads, each[at : at + most])

    def _count_at_once(self, loads: LinkLoads, several: Sequence[tuple[Exchange, Array]]) -> None:
        """Add the bytes of exchanges of one kind, each as often as ranks do it."""
        works, times = [work for work, _ in several], [often for _, often in several]
        at_once = self._counter.at_once(works, times)
        if at_once is None:
            for work, often in several:
                loads.plus(self._counter.weighted(work, often), 1.0)
            return
        for transfer in at_once:
            for kind, nbytes in transfer.loads.loads.items():
                loads.put(kind, nbytes.sum(axis=0))

    @cached_property
    def _counter(self) -> Traffic:
        """Traffic that only adds up bytes."""
        return Traffic(self.machine, self.traffic.layout, "links")

    @cached_property
    def axis(self) -> int | None:
        """The place of pp in the mesh's axes."""
        return next(iter(self.traffic.layout.mesh.positions(("pp",))), None)

    def _at(self, values: Array, stage: int) -> Seconds:
        """What a stage's ranks have of an array over the mesh: of size 1 where they are alike, a float where all are."""
        if self.axis is not None and values.shape[self.axis] > 1:
            values = values.take([stage], axis=self.axis)
        for axis, length in enumerate(values.shape):
            if length > 1 and (values == values.take([0], axis=axis)).all():
                values = values.take([0], axis=axis)
        return float(values.item()) if values.size == 1 else values

    def _joined(self, by_stage: Sequence[Seconds]) -> Array:
        """One array over the mesh from those of stages."""
        arrays = [np.asarray(each).reshape(np.shape(each) or [1] * len(self.work.along)) for each in by_stage]
        if len(arrays) == 1 or self.axis is None:
            return arrays[0]
        shape = np.broadcast_shapes(*(each.shape for each in arrays))
        joined = np.concatenate([np.broadcast_to(each, shape) for each in arrays], axis=self.axis)
        alike = (joined == joined.take([0], axis=self.axis)).all()
        return joined.take([0], axis=self.axis) if alike else joined
