"""Rows of the trace for a pipeline: what the observed ranks' stages do, slot by slot, and what comes to them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from ...workloads.lowering.simulator_memory import MOST_ROWS
from ...workloads.lowering.unroll import ARRIVALS, PHASE, handed_on
from ...workloads.results.trace import TraceRow
from ...workloads.schedule.operation import COMPUTE, Operation
from ...workloads.schedule.work import at
from ..network.links import Array

if TYPE_CHECKING:
    from .stages import PipelineStages

WORDS = {"F": "forward", "B": "backward", "W": "weights"}


def stage_rows(stages: PipelineStages, ready: Array) -> Iterator[TraceRow]:
    """The rows of every observed rank, which could begin at ``ready``."""
    for name, rank in stages.observed.items():
        yield from _of_rank(stages, at(ready, rank), name, rank)


def _of_rank(stages: PipelineStages, ready: float, name: str, rank: tuple[int, ...]) -> Iterator[TraceRow]:
    stage = 0 if stages.axis is None else rank[stages.axis]
    timing, work = stages.played[0], stages.work
    first, order = stages.first[stage], stages.orders[stage]
    offset = ready - (at(timing.end[stage][first - 1], rank) if first else 0.0)

    @cache
    def told(number: int) -> list[TraceRow]:
        return [row for row in stages.stage_run(stage, number).rows if row.ranks == name]

    detailed = sum(len(told(stages.block(stage, slot))) for slot in order[first:]) <= MOST_ROWS
    for place in range(first, len(order)):
        slot = order[place]
        layer = work.first_layer[slot.chunk * work.stages + stage]
        number = slot.micro_batch % work.micro_batches
        begin, end = (at(clock[stage][place], rank) + offset for clock in (timing.begin, timing.end))
        arrival = _arrival(stages, rank, stage, place, name)
        if arrival:
            yield arrival.placed(layer, number, offset)
        rows = told(stages.block(stage, slot))
        if detailed:
            for row in rows:
                yield row.placed(layer, number, begin)
        else:
            flops = sum(row.flops for row in rows)
            slot_of = Operation(f"c{slot.chunk}.{WORDS[slot.kind]}", PHASE[slot.kind], "compute", COMPUTE, work)
            told_as = TraceRow.of(slot_of, ("", "", "", ""), name, (begin, end), (0.0, flops), "none")
            yield told_as.placed(0, number, 0.0)


def _arrival(stages: PipelineStages, rank: tuple[int, ...], stage: int, place: int, name: str) -> TraceRow | None:
    """What brought a slot its input, from when it left its maker until it was there; its layer counts from the stage's first."""
    slot = stages.orders[stage][place]
    source, exchange = stages.source(stage, slot), stages.work.activations
    if source is None or stages.axis is None or exchange is None:
        return None
    sender, there = source
    sent = at(stages.played[0].made[sender][there], rank)
    found = stages.handovers[stages.way(sender, stage, slot.kind)]
    elsewhere = tuple(sender if axis == stages.axis else number for axis, number in enumerate(rank))
    task, label = handed_on(slot, 0)
    operation = Operation(label, PHASE[slot.kind], "pipeline_transfer", ARRIVALS, exchange, task=task)
    where = (exchange.operation, "+".join(exchange.axes), stages.traffic.layout.span(exchange.axes), exchange.algorithm)
    times = (sent, at(stages.played[0].came[stage][place], rank))
    return TraceRow.of(operation, where, name, times, (at(exchange.nbytes, elsewhere), 0.0), found.limit)
