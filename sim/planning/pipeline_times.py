"""How long micro-batches take through the stages of a pipeline: its own closed form, or its order played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from ...workloads.pipelines import Pipeline, Slot, sequence
from ...workloads.pipelines.never_flushed import streamed
from ...workloads.pipelines.stage_seconds import PartSeconds, StageSeconds
from ..engine.stage_cards import Cards, Slowing, StageMessage

LEAST = 8
"""Micro-batches at least by which a step is made longer to see how long more of them take."""

ROUNDS = 8
"""Micro-batches at least, for each stage, over which the pace of a pipeline that never flushes is taken."""


class Turns(NamedTuple):
    """Slots of all stages in an order in which each comes after what it needs; an item of each list for each slot.

    ``which`` is :data:`PASSES` · part + pass (F, B, W, or a B or W that completes gradients of a step), ``source`` the slot whose
    result it needs, -1 for none, and ``far`` whether that is of another stage. ``cuts`` are the slots at whose ends a step of an
    endless pipeline begins and ends.
    """

    stage: list[int]
    which: list[int]
    source: list[int]
    far: list[bool]
    cuts: tuple[int, ...] = ()


@dataclass
class PipelineTimes:
    """Steps of pipelines. Orders are played once for each set of seconds."""

    _played: dict[tuple[object, ...], float] = field(default_factory=dict)

    def step_seconds(self, pipeline: Pipeline, stages: StageSeconds, micro_batches: int) -> float:
        """Seconds of a step."""
        found = None if stages.crowded else pipeline.step_seconds(stages, micro_batches)
        return self.played(pipeline, stages, micro_batches) if found is None else found

    def played(self, pipeline: Pipeline, stages: StageSeconds, micro_batches: int) -> float:
        """The same by playing the order; of many micro-batches some, which tell how long more of them take."""
        key = (pipeline, stages.stages, micro_batches, stages.send, stages.wire, tuple(stages.parts))
        if key not in self._played:
            if len(self._played) > KEPT:
                self._played.clear()
            self._played[key] = self._play(pipeline, stages, micro_batches)
        return self._played[key]

    def _play(self, pipeline: Pipeline, stages: StageSeconds, micro_batches: int) -> float:
        count = stages.stages
        if pipeline.asynchronous:
            first, last = _ends(pipeline, stages, micro_batches)
            return (last - first) / _steps(count, micro_batches)
        step = _round(pipeline, stages, micro_batches)
        few = step + count
        if micro_batches < few + 2 * step:
            return self._end(pipeline, stages, micro_batches)
        one, two = (self._end(pipeline, stages, each) for each in (few, few + step))
        return one + (micro_batches - few) / step * (two - one)

    def _end(self, pipeline: Pipeline, stages: StageSeconds, micro_batches: int) -> float:
        if stages.crowded:
            return _queued(pipeline, stages, micro_batches)
        return _ends(pipeline, stages, micro_batches)[0]


KEPT = 20_000
"""Answers that are kept at once."""

PASS = {"F": 0, "B": 1, "W": 2}
PASSES = 4


def one_after_another(parts: Sequence[PartSeconds], micro_batches: int) -> float:
    """Seconds of micro-batches through a model that is all in one part."""
    (only,) = parts
    return micro_batches * (only.forward + only.backward + only.weights) + only.tail


def _round(pipeline: Pipeline, stages: StageSeconds, micro_batches: int) -> int:
    """Micro-batches after which a pipeline repeats itself: as many as the first stage has under way, some times over."""
    under_way = pipeline.in_flight(stages.stages, micro_batches, stages.chunks)[0]
    once = under_way[0] if stages.chunks == 1 else stages.stages
    return once * -(-LEAST // once)


def _steps(stages: int, micro_batches: int) -> int:
    """Steps over which the pace of a pipeline that never flushes is taken, after as many that fill it."""
    return stages * max(1, ROUNDS // micro_batches)


@lru_cache(maxsize=500)
def _turns(pipeline: Pipeline, stages: int, micro_batches: int, chunks: int) -> Turns:
    if pipeline.asynchronous:
        orders = streamed(pipeline, stages, micro_batches, 2 * _steps(stages, micro_batches)).orders
    else:
        orders = pipeline.orders(stages, micro_batches, chunks)
    completes = "W" if pipeline.splits_backward else "B"
    stage, which, source, far, last = [], [], [], [], []
    for at, (mine, place, needed, sender) in enumerate(sequence(orders, pipeline.folded)):
        slot = orders[mine][place]
        number = PASS[slot.kind]
        if slot.kind == completes and slot.micro_batch % micro_batches == micro_batches - 1:
            number = PASSES - 1
            if mine == 0:
                last.append(at)
        stage.append(mine)
        which.append(PASSES * (slot.chunk * stages + mine) + number)
        source.append(needed)
        far.append(sender != mine)
    cuts = (last[len(last) // 2 - 1], last[-1]) if pipeline.asynchronous else ()
    return Turns(stage, which, source, far, cuts)


def _queued(pipeline: Pipeline, stages: StageSeconds, micro_batches: int) -> float:
    """When all is done where messages queue for cards, as the engine plays it."""
    orders = pipeline.orders(stages.stages, micro_batches, stages.chunks)
    split = any(each.weights for each in stages.parts)

    def work(stage: int, slot: Slot) -> tuple[float, float]:
        part = stages.parts[slot.chunk * stages.stages + stage]
        tail = part.tail if slot.micro_batch == micro_batches - 1 and slot.kind == ("W" if split else "B") else 0.0
        seconds = {"F": part.forward, "B": part.backward, "W": part.weights}[slot.kind]
        after = {"F": part.forward_after, "B": part.backward_after, "W": 0.0}[slot.kind]
        return seconds + tail, seconds - after

    slots = [[work(stage, slot) for slot in order] for stage, order in enumerate(orders)]
    busy, made = ([[pair[which] for pair in each] for each in slots] for which in (0, 1))
    message = StageMessage(stages.wire, stages.send - stages.wire)
    cards = Cards(orders, sequence(orders, pipeline.folded), busy, made, lambda *ends: message, lambda *slot: Slowing())
    return max(each[-1].end for each in cards.play())


def _ends(pipeline: Pipeline, stages: StageSeconds, micro_batches: int) -> list[float]:
    """When all is done, or when the steps end that ``cuts`` name: a slot begins when its stage is free and its input there."""
    turns = _turns(pipeline, stages.stages, micro_batches, stages.chunks)
    split = any(each.weights for each in stages.parts)
    busy, made = list[float](), list[float]()
    for each in stages.parts:
        completing = each.weights if split else each.backward
        busy += [each.forward, each.backward, each.weights, completing + each.tail]
        passed = each.backward - each.backward_after
        made += [each.forward - each.forward_after, passed, each.weights, each.weights if split else passed]
    free, done, lags, ends = [0.0] * stages.stages, list[float](), (0.0, stages.send), list[float]()
    for stage, which, source, far in zip(turns.stage, turns.which, turns.source, turns.far, strict=True):
        begin = free[stage]
        if source >= 0:
            there = done[source] + lags[far]
            if there > begin:
                begin = there
        done.append(begin + made[which])
        free[stage] = begin + busy[which]
        if stage == 0 and turns.cuts and len(done) - 1 in turns.cuts:
            ends.append(free[0])
    return ends or [max(free)]
