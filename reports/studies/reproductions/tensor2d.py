"""``reproduce tensor2d``: what SUMMA on a grid moves and keeps beside 1-D tensor parallelism, and Optimus on Frontera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ....hardware.machine import Machine, load_machine
from ....workloads.lowering import lower
from ....workloads.model.model import Model, load_model
from ...content.figures import Bars, Series
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ..claims import Claim
from .desk import Desk, Step, step
from .facts import Facts
from .quantities import need, sent
from .record import Reproduction

SIDES = (2, 4, 8)
WAYS: tuple[tuple[str, Literal["1d", "2d"]], ...] = (("1-D", "1d"), ("2-D", "2d"))
ELEMENT = 4
"""Bytes of an element: Optimus ran in single precision."""

MOST_BATCH = 4096

SPEED_TEXT = (
    "A card joins a node's four GPUs to all others; its bytes are those of the busiest one in one direction. A ring over 64"
    " ranks goes through every card once: 3 x 3.94 b s h elements a layer, the pass that is worked out again included. Of"
    " the grid in tiles of 2 x 2, two rows and two columns go through a card: 4 x 2 (7 b s h + 12 h^2)/8 elements, in an"
    " eighth more time, in which chains fill. So the grid wins where b s is large beside h: at its own largest batch, not at"
    " that of 1-D, where it sends weights for hardly any tokens. It loses too where a node holds half a column, since four"
    " rows then go through each card. Optimus published 1.48; nothing is fitted to it, and the machine's rates are those of"
    " data sheets or assumed."
)
COLUMNS = ("", "sequences", "sequences/s", "in exchanges", "GB a card, a sequence", "card busy", "over 1-D")

BATCHES = {
    "inputs of layers kept whole": ("1d", False),
    "inputs of layers and all else cut by sequence parallelism": ("1d", True),
    "2-D": ("2d", False),
}
"""Ways to keep activations. Megatron then cut the inputs of layers and kept all else whole, between the first two."""


def build(desk: Desk) -> Reproduction:
    """Volumes and memory from schedules, the largest batches, and steps."""
    facts, machine = Facts("tensor2d"), load_machine("frontera-rtx")
    found = Reproduction("tensor2d", facts.table["title"], machine)
    model = load_model("optimus-64")
    desk.progress("volumes and memory")
    found.claims = [*_volumes(facts, model), *_memory(facts, machine, model)]
    ways = {name: (machine, model, *way) for name, way in BATCHES.items()}
    largest: dict[str, int] = desk.each(_largest_batch, ways, lambda name: f"largest batch, {name}")
    for name in list(BATCHES)[:2]:
        ratio = largest["2-D"] / largest[name]
        text = f"largest batch on 64 GPUs, 2-D over 1-D with {name}"
        found.claims.append(facts.claim("batch_ratio", text, ratio, "predicted"))
    steps = _steps(desk, machine, model, largest["inputs of layers kept whole"], largest["2-D"])
    one, two = steps["1-D"].rate, steps["2-D in tiles"].rate
    found.claims += [
        facts.claim("train_speedup", "64 GPUs: sequences/s, 2-D over 1-D", two / one, "predicted"),
        facts.truth("train_speedup", "64 GPUs: 2-D is faster than 1-D", two > one),
    ]
    found.parts = [
        ReportPart(
            Section("Volume"),
            [
                Drawing(
                    "volume",
                    "Elements that a rank sends forward in one layer, of b s h, for ever more ranks.",
                    _drawn_volume(model),
                )
            ],
        ),
        ReportPart(
            Section("Optimus on 64 GPUs", SPEED_TEXT, COLUMNS, [each.row(name) for name, each in steps.items()]),
            [Drawing("speed", "Sequences a second.", _drawn_speed(steps))],
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
            "arithmetic",
            facts.source("volume_1d"),
        )
        matrices = 12.0 * model.hidden**2
        formula = (side - 1) / side**2 * (7 * whole + matrices) / whole
        small = _few(model, side)
        yield Claim(
            f"the same, 2-D on {ranks}, without the sums of norms",
            formula,
            _forward(model, side, "2d") - small,
            "arithmetic",
            facts.source("volume_2d"),
        )


def _forward(model: Model, side: int, tensor: Literal["1d", "2d"]) -> float:
    schedule = lower("frontera-rtx", model, mesh={"tp": side * side}, tensor=tensor, recompute="none")
    elements = sent(schedule, lambda each: each.task.layer == 0 and each.phase == "forward") / ELEMENT
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


def _largest_batch(task: tuple[Machine, Model, str, bool]) -> int:
    """The most sequences in one micro-batch that fit 64 GPUs; rows of the grid share them evenly."""
    machine, model, tensor, sequence = task
    share = SIDES[-1] if tensor == "2d" else 1
    low, high = 0, MOST_BATCH // share
    while high - low > 1:
        middle = (low + high) // 2
        batch = {"global_batch": share * middle, "micro_batch": share * middle, "sequence_parallel": sequence}
        kept = need(machine, model, mesh={"tp": 64}, tensor=tensor, **batch)
        low, high = (middle, high) if kept.fits else (low, middle)
    return share * low


def _steps(desk: Desk, machine: Machine, model: Model, one: int, two: int) -> dict[str, OptimusStep]:
    """Steps on 64 GPUs, 1-D and 2-D at their largest batches, and what becomes of 2-D elsewhere."""
    apart = machine.changed({"node.core_groups": 1})
    side, published = SIDES[-1], int(model.plan["global_batch"])
    few, many = "1-D", "1-D, a card for each GPU"
    ways: dict[str, tuple[Machine, str, int, str | None, str]] = {
        few: (machine, "1d", one, None, "auto"),
        "2-D in tiles": (machine, "2d", two, few, "auto"),
        "2-D in tiles, Optimus's batch": (machine, "2d", published, few, "auto"),
        "2-D in tiles, 1-D's batch": (machine, "2d", one // side * side, few, "auto"),
        "2-D, half columns on nodes": (machine, "2d", two, few, "megatron"),
        many: (apart, "1d", one, None, "auto"),
        "2-D, a card for each GPU": (apart, "2d", two, many, "auto"),
    }
    tasks: dict[str, Step] = {}
    for name, (where, tensor, batch, _, placement) in ways.items():
        plan = {"global_batch": batch, "micro_batch": batch, "tensor": tensor, "placement": placement}
        tasks[name] = (where, model, {"mesh": {"tp": 64}, **plan})
    made, steps = desk.each(step, tasks), dict[str, OptimusStep]()
    for name, (_, _, batch, beside, _) in ways.items():
        steps[name] = OptimusStep(made[name], batch, steps[beside] if beside else None)
    return steps


@dataclass(frozen=True)
class OptimusStep:
    """A simulated step of so many sequences, and the step in one dimension to compare it with."""

    totals: dict[str, Any]
    sequences: int
    beside: OptimusStep | None

    @property
    def rate(self) -> float:
        """Sequences a second."""
        return self.sequences / float(self.totals["step_seconds"])

    def row(self, name: str) -> tuple[str, ...]:
        """A row of the table."""
        seconds = self.totals["step_seconds"]
        card = next(each for each in self.totals["links"] if each["kind"] == "nic.out")
        nbytes = card["max_utilisation"] * seconds * card["capacity_bytes_per_second"]
        return (
            name,
            f"{self.sequences}",
            f"{self.rate:.3f}",
            f"{self.totals['breakdown']['tensor_parallel'] / seconds:.0%}",
            f"{nbytes / self.sequences / 1e9:.2f}",
            f"{card['max_utilisation']:.0%}",
            f"{self.rate / self.beside.rate:.2f}" if self.beside else "",
        )


def _drawn_volume(model: Model) -> Series:
    curves = {name: [(side * side, _forward(model, side, tensor)) for side in SIDES] for name, tensor in WAYS}
    return Series(curves, "ranks", "elements sent / b s h", "Forward pass of a layer")


def _drawn_speed(steps: dict[str, OptimusStep]) -> Bars:
    sizes = {name.replace(", ", ",\n"): each.rate for name, each in steps.items()}
    return Bars(sizes, "sequences a second", "64 GPUs, each way at its largest batch but where named", "way")
