"""How long micro-batches take through the stages of a pipeline: its own closed form, or its order played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...workloads.pipelines import Pipeline, sequence
from ...workloads.pipelines.never_flushed import streamed
from ...workloads.pipelines.stage_seconds import PartSeconds, StageSeconds

FEW = 2
"""Micro-batches a stage after which each p more take as long as those before."""

ROUNDS = 8
"""Micro-batches at least, for each stage, over which the pace of a pipeline that never flushes is taken."""


class Turns(NamedTuple):
    """Slots of all stages in an order in which each comes after what it needs; an item of each list for each slot.

    ``which`` is 3 · part + pass (F, B, W), ``source`` the slot whose result it needs, -1 for none, and ``far`` whether that is of
    another stage. ``last`` are the places at which slots of the last micro-batch end that complete gradients, ``cuts`` at which
    steps do.
    """

    stage: list[int]
    which: list[int]
    source: list[int]
    far: list[bool]
    last: frozenset[int]
    cuts: tuple[int, ...] = ()


@dataclass
class PipelineTimes:
    """Steps of pipelines. Orders are put in sequence once for each size, and played once for each set of seconds."""

    _turns: dict[tuple[str, int, int, int], Turns] = field(default_factory=dict)
    _played: dict[tuple[object, ...], float] = field(default_factory=dict)

    def step_seconds(
        self, pipeline: Pipeline, parts: Sequence[PartSeconds], stages: int, micro_batches: int, send: float
    ) -> float:
        """Seconds of a step whose messages between stages take ``send`` each."""
        found = pipeline.step_seconds(StageSeconds(parts, stages, send), micro_batches)
        return self.played(pipeline, parts, stages, micro_batches, send) if found is None else found

    def played(
        self, pipeline: Pipeline, parts: Sequence[PartSeconds], stages: int, micro_batches: int, send: float
    ) -> float:
        """The same by playing the order; of many micro-batches some, which tell how long more of them take."""
        key = (pipeline.name, stages, micro_batches, send, tuple(parts))
        if key not in self._played:
            if len(self._played) > KEPT:
                self._played.clear()
            self._played[key] = self._play(pipeline, parts, stages, micro_batches, send)
        return self._played[key]

    def _play(
        self, pipeline: Pipeline, parts: Sequence[PartSeconds], stages: int, micro_batches: int, send: float
    ) -> float:
        chunks = len(parts) // stages
        if pipeline.asynchronous:
            first, last = _ends(self._of(pipeline, stages, micro_batches, chunks), parts, stages, send)
            return (last - first) / _steps(stages, micro_batches)
        more = max(0, micro_batches - FEW * stages) // stages
        if more < 2:
            return _ends(self._of(pipeline, stages, micro_batches, chunks), parts, stages, send)[0]
        few = micro_batches - more * stages
        one, two = (
            _ends(self._of(pipeline, stages, count, chunks), parts, stages, send)[0] for count in (few, few + stages)
        )
        return one + more * (two - one)

    def _of(self, pipeline: Pipeline, stages: int, micro_batches: int, chunks: int) -> Turns:
        key = (pipeline.name, stages, micro_batches, chunks)
        if key not in self._turns:
            if len(self._turns) > KEPT_TURNS:
                self._turns.clear()
            self._turns[key] = _turns(pipeline, stages, micro_batches, chunks)
        return self._turns[key]


KEPT, KEPT_TURNS = 20_000, 500
"""Answers and orders that are kept at once."""

PASS = {"F": 0, "B": 1, "W": 2}


def one_after_another(parts: Sequence[PartSeconds], micro_batches: int) -> float:
    """Seconds of micro-batches through a model that is all in one part."""
    (only,) = parts
    return micro_batches * (only.forward + only.backward + only.weights) + only.tail


def _steps(stages: int, micro_batches: int) -> int:
    """Steps over which the pace of a pipeline that never flushes is taken, after as many that fill it."""
    return stages * max(1, ROUNDS // micro_batches)


def _turns(pipeline: Pipeline, stages: int, micro_batches: int, chunks: int) -> Turns:
    if pipeline.asynchronous:
        orders = streamed(pipeline, stages, micro_batches, 2 * _steps(stages, micro_batches)).orders
    else:
        orders = pipeline.orders(stages, micro_batches, chunks)
    completes = "W" if pipeline.splits_backward else "B"
    stage, which, source, far, last = [], [], [], [], []
    cuts: list[int] = []
    for at, (mine, place, needed, sender) in enumerate(sequence(orders)):
        slot = orders[mine][place]
        stage.append(mine)
        which.append(3 * (slot.chunk * stages + mine) + PASS[slot.kind])
        source.append(needed)
        far.append(sender != mine)
        if slot.kind == completes and slot.micro_batch % micro_batches == micro_batches - 1:
            last.append(at)
    if pipeline.asynchronous:
        ends = [at for at in last if stage[at] == 0]
        cuts = [ends[len(ends) // 2 - 1], ends[-1]]
    return Turns(stage, which, source, far, frozenset(last), tuple(cuts))


def _ends(turns: Turns, parts: Sequence[PartSeconds], stages: int, send: float) -> list[float]:
    """When all is done, or when the steps end that ``cuts`` name: a slot begins when its stage is free and its input there."""
    busy = [seconds for each in parts for seconds in each[:3]]
    made = [seconds for each in parts for seconds in (each[0] - each[3], each[1] - each[4], each[2])]
    tails, last = [each.tail for each in parts], turns.last
    free, done, cuts = [0.0] * stages, list[float](), dict[int, float]()
    for at, (stage, which, source, far) in enumerate(
        zip(turns.stage, turns.which, turns.source, turns.far, strict=True)
    ):
        begin = free[stage]
        if source >= 0:
            there = done[source] + send if far else done[source]
            if there > begin:
                begin = there
        done.append(begin + made[which])
        free[stage] = begin + busy[which]
        if at in last:
            free[stage] += tails[which // 3]
            if at in turns.cuts:
                cuts[at] = free[stage]
    return [cuts[at] for at in turns.cuts] or [max(free)]
