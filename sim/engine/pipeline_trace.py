"""Rows of the trace for a pipeline: what the observed ranks' stages do, slot by slot, and what comes to them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from ...workloads.lowering.pipeline_blocks import named
from ...workloads.schedule.schedule import at
from ..network.links import Array

if TYPE_CHECKING:
    from .stages import PipelineStages

MOST_ROWS = 20_000
"""Rows of a class of ranks up to which every operation is told; above, every slot."""

WORDS = {"F": "forward", "B": "backward", "W": "weights"}
CLASS, START, END, FLOPS = 8, 9, 10, 12
"""Columns of rows as a ledger keeps them."""

Row = tuple[Any, ...]


def stage_rows(stages: PipelineStages, ready: Array) -> Iterator[Row]:
    """The rows of every observed rank, which could begin at ``ready``."""
    for name, rank in stages.observed.items():
        yield from _of_rank(stages, at(ready, rank), name, rank)


def _of_rank(stages: PipelineStages, ready: float, name: str, rank: tuple[int, ...]) -> Iterator[Row]:
    stage = 0 if stages.axis is None else rank[stages.axis]
    timing, work = stages.played[0], stages.work
    first, order = stages.first[stage], stages.orders[stage]
    offset = ready - (at(timing.end[stage][first - 1], rank) if first else 0.0)

    @cache
    def told(number: int) -> list[Row]:
        return [row for row in stages.block_run(number).rows if row[CLASS] == name]

    detailed = sum(len(told(stages.block(stage, slot))) for slot in order[first:]) <= MOST_ROWS
    for place in range(first, len(order)):
        slot = order[place]
        layer = work.first_layer[slot.chunk * work.stages + stage]
        number = slot.micro_batch % work.micro_batches
        begin, end = (at(clock[stage][place], rank) + offset for clock in (timing.begin, timing.end))
        arrival = _arrival(stages, rank, stage, place)
        if arrival:
            sent, seconds, row = arrival
            text = f"m{number}.l{layer}.activations{'' if slot.kind == 'F' else '.grad'}"
            yield (text, *row[:7], name, sent + offset, sent + seconds + offset, *row[7:])
        rows = told(stages.block(stage, slot))
        if detailed:
            for row in rows:
                yield (
                    named(row[0], layer, number),
                    *row[1:START],
                    row[START] + begin,
                    row[END] + begin,
                    *row[END + 1 :],
                )
        else:
            text, phase = f"m{number}.c{slot.chunk}.{WORDS[slot.kind]}", "forward" if slot.kind == "F" else "backward"
            flops = sum(row[FLOPS] for row in rows)
            yield (text, "pipeline", phase, "compute", "compute", "", "", "", name, begin, end, 0.0, flops, "none")


def _arrival(stages: PipelineStages, rank: tuple[int, ...], stage: int, place: int) -> tuple[float, float, Row] | None:
    """When a slot's input left its maker, for how long it was under way, and the other columns of its row."""
    slot = stages.orders[stage][place]
    source = stages.source(stage, slot)
    if source is None or stages.axis is None or stages.work.activations is None:
        return None
    sender, there = source
    sent = at(stages.played[0].made[sender][there], rank)
    found = stages.handovers[slot.kind]
    elsewhere = tuple(sender if axis == stages.axis else number for axis, number in enumerate(rank))
    phase = "forward" if slot.kind == "F" else "backward"
    level = stages.traffic.layout.span(("pp",))
    what = ("exchange", phase, "pipeline_transfer", "pipeline", "shift", "pp", level)
    return (
        sent,
        float(found.seconds[elsewhere]),
        (*what, at(stages.work.activations.nbytes, elsewhere), 0.0, found.limit),
    )
