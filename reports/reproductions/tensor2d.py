"""``reproduce tensor2d``: what SUMMA on a grid moves and keeps beside 1-D tensor parallelism, and Optimus on Frontera."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ...hardware.machine import Machine, load_machine
from ...sim.simulate import simulate
from ...workloads.lowering import lower
from ...workloads.model import Model, load_model
from .. import reproduction_plots
from ..claims import Claim
from ..report import Section, inputs
from .facts import Facts
from .quantities import need, sent
from .record import Drawing, Part, Progress, Reproduction

SIDES = (2, 4, 8)
ELEMENT = 4
"""Bytes of an element: Optimus ran in single precision."""

MOST_BATCH = 4096

SPEED_TEXT = (
    "Each at the largest batch that fits. On Frontera four GPUs share a card. A ring over 64 ranks crosses each card"
    " once in a direction, while every row or column of the grid that leaves a node has to pass through it: there the"
    " ring wins, though the grid moves a fraction of its bytes. With a card for each GPU volumes decide, and the grid"
    " wins. Broadcasts and reduces go down binomial trees, log2 q times the payload, where pipelined ones would take"
    " it once. Neither machine reaches the published 1.48."
)

BATCHES = {
    "inputs of layers kept whole": ("1d", False),
    "inputs of layers and all else cut by sequence parallelism": ("1d", True),
    "2-D": ("2d", False),
}
"""Ways to keep activations. Megatron then cut the inputs of layers and kept all else whole, between the first two."""


def build(progress: Progress = lambda text: None) -> Reproduction:
    """Volumes and memory from schedules, the largest batches, and steps."""
    facts, machine = Facts("tensor2d"), load_machine("frontera-rtx")
    found = Reproduction("tensor2d", facts.table["title"], machine)
    model = load_model("optimus-64")
    progress("volumes and memory")
    found.claims = [*_volumes(facts, model), *_memory(facts, machine, model)]
    progress("largest batches")
    largest = {name: _largest_batch(machine, model, *way) for name, way in BATCHES.items()}
    for name in list(BATCHES)[:2]:
        ratio = largest["2-D"] / largest[name]
        text = f"largest batch on 64 GPUs, 2-D over 1-D with {name}"
        found.claims.append(facts.claim("batch_ratio", text, ratio, "predicted"))
    progress("steps on 64 GPUs")
    machines = {
        "Frontera, four GPUs a card": machine,
        "a card for each GPU": machine.changed({"node.core_groups": 1}),
    }
    batches = {"1d": largest["inputs of layers kept whole"], "2d": largest["2-D"]}
    speeds = {name: _speeds(each, model, batches) for name, each in machines.items()}
    one, two = speeds["Frontera, four GPUs a card"]
    found.claims += [
        facts.claim("train_speedup", "64 GPUs: sequences/s, 2-D over 1-D", _rate(two) / _rate(one), "predicted"),
        facts.truth("train_speedup", "64 GPUs: 2-D is faster than 1-D", _rate(two) > _rate(one)),
    ]
    rows = [(name, *_cells(one), *_cells(two), f"{_rate(two) / _rate(one):.2f}") for name, (one, two) in speeds.items()]
    columns = ("", "1-D seq/s", "in exchanges", "2-D seq/s", "in exchanges", "2-D over 1-D")
    found.parts = [
        Part(
            Section("Volume"),
            [
                Drawing(
                    "volume",
                    "Elements that a rank sends forward in one layer, of b s h, for ever more ranks.",
                    partial(_drawn_volume, model),
                )
            ],
        ),
        Part(
            Section("Optimus on 64 GPUs", SPEED_TEXT, columns, rows),
            [Drawing("speed", "Sequences a second.", partial(_drawn_speed, speeds))],
        ),
    ]
    found.inputs = inputs(machine, model, model.plan)
    return found


def _volumes(facts: Facts, model: Model) -> Iterator[Claim]:
    """Elements that a rank sends forward in a layer, over b s h."""
    for side in (2, 8):
        ranks, whole = side * side, _activations(model)
        yield Claim(
            f"elements a rank sends forward in a layer over b s h, 1-D on {ranks}",
            4 * (ranks - 1) / ranks,
            _forward(model, side, "1d"),
            "exact",
            facts.source("volume_1d"),
        )
        matrices = 12.0 * model.hidden**2
        formula = (side - 1) / side**2 * (7 * whole + matrices) / whole
        small = _few(model, side)
        yield Claim(
            f"the same, 2-D on {ranks}, without the sums of norms",
            formula,
            _forward(model, side, "2d") - small,
            "exact",
            facts.source("volume_2d"),
        )


def _forward(model: Model, side: int, tensor: str) -> float:
    schedule = lower("frontera-rtx", model, mesh={"tp": side * side}, tensor=tensor, recompute="none")
    elements = sent(schedule, lambda each: each.name.startswith("l0.") and each.phase == "forward") / ELEMENT
    return elements / _activations(model)


def _activations(model: Model) -> float:
    """B s h of the plan's batch."""
    return float(model.plan["global_batch"]) * model.seq_len * model.hidden


def _few(model: Model, side: int) -> float:
    """What two norms of a layer add up along rows: two numbers a token, of the tokens of a row, over b s h."""
    return 2 * 2 * 2 * (side - 1) / side / side / model.hidden


def _memory(facts: Facts, machine: Machine, model: Model) -> Iterator[Claim]:
    """Activations and weights of a rank of the grid, over those of one rank alone."""
    batch = {"global_batch": 8, "micro_batch": 8, "recompute": "none"}
    alone = need(machine, model, mesh={"tp": 1}, tensor="1d", **batch)
    grid = need(machine, model, mesh={"tp": 64}, tensor="2d", **batch)
    for what in ("activations", "parameters"):
        share = float(getattr(grid, what) / getattr(alone, what))
        yield Claim(
            f"{what} of a rank of the 8 x 8 grid, of the whole", 1 / 64, share, "predicted", facts.source("memory_2d")
        )


def _largest_batch(machine: Machine, model: Model, tensor: str, sequence: bool) -> int:
    """The most sequences in one micro-batch that fit 64 GPUs, in steps of the grid's side."""
    low, high = 0, MOST_BATCH // 8
    while high - low > 1:
        middle = (low + high) // 2
        batch = {"global_batch": 8 * middle, "micro_batch": 8 * middle, "sequence_parallel": sequence}
        kept = need(machine, model, mesh={"tp": 64}, tensor=tensor, **batch)
        low, high = (middle, high) if kept.fits else (low, middle)
    return 8 * low


def _speeds(machine: Machine, model: Model, largest: dict[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    one, two = (
        simulate(
            machine, model, mesh={"tp": 64}, tensor=tensor, global_batch=largest[tensor], micro_batch=largest[tensor]
        ).summary()
        for tensor in ("1d", "2d")
    )
    return one, two


def _rate(totals: dict[str, Any]) -> float:
    """Sequences a second."""
    return float(totals["tokens_per_second"]) / 512


def _cells(totals: dict[str, Any]) -> tuple[str, str]:
    return f"{_rate(totals):.3f}", f"{totals['breakdown']['tensor_parallel'] / totals['step_seconds']:.0%}"


def _drawn_volume(model: Model) -> Any:
    curves = {
        name: [(side * side, _forward(model, side, tensor)) for side in SIDES]
        for name, tensor in (("1-D", "1d"), ("2-D", "2d"))
    }
    return reproduction_plots.series(curves, "ranks", "elements sent / b s h", "Forward pass of a layer")


def _drawn_speed(speeds: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> Any:
    sizes = {
        "\n".join((*name.split(", "), way)): _rate(each)
        for name, pair in speeds.items()
        for way, each in zip(("1-D", "2-D"), pair, strict=True)
    }
    return reproduction_plots.bars(sizes, "sequences a second", "64 GPUs, each way at its largest batch")
