"""``reproduce pangu``: PanGu-alpha's five-dimensional plan on Cloud Brain II, what fits, and inference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from ....hardware.machine import Machine, load_machine
from ....hardware.units import si
from ....sim.studies.inference import Inference
from ....workloads.lowering.data_parallel.sharding import held, layers_of
from ....workloads.memory import account, sample_loads
from ....workloads.model.model import load_model
from ....workloads.plan.setting import Setting
from ...content.figures import Breakdown, MemoryByPart, StepsByCategory
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ..claims import Claim
from .desk import Desk, Step, inference, step
from .facts import Facts, measured
from .quantities import fits, fixed_bytes, need
from .record import Reproduction

WAYS = (8, 16)
"""Data-parallel ways: the text's, which make 1,024 processors, and those that make the 2,048 that it names."""

PLACEMENT_TEXT = (
    "The same mesh on the same 256 nodes, axes from the one that runs fastest. The documents' placement has operators"
    " inside a server, stages between servers and replicas farthest apart: tp, pp, dp. Racks were not described, and"
    " the fabric is taken as one switch, so that the order of stages and replicas changes nothing."
)
BOTH_TEXT = (
    "1,024 sequences a step in micro-batches of one, which is assumed. The last two columns are GB of the fullest"
    " rank, of 32: without optimizer parallel it fits, but nothing else does."
)
BOTH_COLUMNS = (
    "data-parallel ways",
    "processors",
    "step s",
    "tensor-parallel",
    "bubble",
    "gradient-sync",
    "GB",
    "GB, --zero 0",
)
WITHOUT = "\n--zero 0"
RESIZE_TEXT = (
    "From 2,048 to 1,024 processors in mid-run: half of the replicas leave, and the optimizer's state, of which each"
    " held a sixteenth, is spread over eight. Weights are at hand in every replica. Seconds are those of the fullest"
    " node's interfaces."
)


def build(desk: Desk) -> Reproduction:
    """Sizes, memory, placements, both ways to read the plan, and inference."""
    facts, machine = Facts("pangu"), load_machine("cloud-brain-2")
    found = Reproduction("pangu", facts.table["title"], machine)
    desk.progress("sizes and memory")
    found.claims = [*_sizes(facts, machine), *_plan(facts, machine), *_memory(facts, machine)]
    orders = desk.each(
        step,
        {order: _step(machine, 16, placement=f"block:{','.join(order)}") for order in permutations(("tp", "pp", "dp"))},
        lambda order: f"placement {', '.join(order)}",
    )
    documents, best = orders["tp", "pp", "dp"], min(each["step_seconds"] for each in orders.values())
    ratio = documents["step_seconds"] / best
    found.claims.append(
        Claim(
            "step of the documents' placement over the best of six",
            1.0,
            ratio,
            "predicted",
            facts.source("operator_ways"),
        )
    )
    steps = desk.each(step, {ways: _step(machine, ways) for ways in WAYS}, lambda ways: f"{ways} data-parallel ways")
    tables = _tables(machine)
    found.claims += _measured(facts, machine, desk)
    desk.progress("inference")
    found.claims += _inference(facts, machine, desk)
    columns = ("fastest first", "step s", "tensor-parallel", "bubble", "gradient-sync")
    rows = [(", ".join(order), *_cells(totals)) for order, totals in orders.items()]
    found.parts = [
        ReportPart(
            Section("Placements of 207 B on 2,048 processors", PLACEMENT_TEXT, columns, rows),
            [
                Drawing(
                    "placements",
                    "Steps by category.",
                    StepsByCategory(
                        {", ".join(order): totals for order, totals in orders.items()},
                        "Placements of the same mesh",
                        "axes, fastest first",
                    ),
                )
            ],
        ),
        ReportPart(
            Section("Both ways to read the plan", BOTH_TEXT, BOTH_COLUMNS, _both(steps, tables)),
            [
                Drawing(
                    "memory",
                    "With and without optimizer parallel.",
                    MemoryByPart(tables, "data-parallel x operator x pipeline ways"),
                ),
                Drawing(
                    "breakdown",
                    "Steps of both.",
                    Breakdown(
                        {f"{ways} x 8 x 16": each for ways, each in steps.items()},
                        "data-parallel x operator x pipeline ways",
                    ),
                ),
            ],
        ),
        ReportPart(
            Section(
                "Half of the processors leave",
                RESIZE_TEXT,
                ("shards", "GB a rank receives at most", "TB in all", "seconds"),
                _resize(machine),
            )
        ),
    ]
    found.inputs = inputs(machine, load_model("pangu-200b"), load_model("pangu-200b").plan)
    found.warnings = list(dict.fromkeys(each for totals in steps.values() for each in totals["warnings"]))
    return found


def _setting(machine: Machine, ways: int, **options: Any) -> Setting:
    mesh = {"dp": ways, "pp": 16, "tp": 8}
    return Setting.of(machine, "pangu-200b", {"mesh": mesh, **options})


def _step(machine: Machine, ways: int, **options: Any) -> Step:
    return machine, "pangu-200b", {"mesh": {"dp": ways, "pp": 16, "tp": 8}, **options}


def _sizes(facts: Facts, machine: Machine) -> Iterator[Claim]:
    for name in facts.values["parameters"]:
        yield facts.claim("parameters", f"{name}: parameters", load_model(name).parameters.total, at=name)
    for what, count in (
        ("the nominal 200 B", 200e9),
        ("all that the shape counts", load_model("pangu-200b").parameters.total),
    ):
        yield facts.claim("fp32_gibibytes", f"GiB in single precision of {what}", 4 * count / 2**30)
    peak = machine.nodes * machine.node.core_groups * machine.core_group.peak["fp16"]
    yield facts.claim("exaflops", "EFLOP/s of 4,096 processors in half precision", peak / 1e18)


def _plan(facts: Facts, machine: Machine) -> Iterator[Claim]:
    """Stages and ranks, both ways."""
    for ways in WAYS:
        setting = _setting(machine, ways)
        if ways == WAYS[0]:
            each = {len(layers_of(setting, stage)) for stage in range(setting.mesh.size("pp"))}
            yield facts.claim("layers_of_a_stage", "layers of each of 16 stages", max(each))
        yield facts.claim(
            "ranks", f"processors of {ways} data-parallel, 8 operator and 16 pipeline ways", setting.mesh.ranks, at=ways
        )
    text = "processors of the text's eight data-parallel ways, against the 2,048 that it names"
    yield Claim(text, facts.value("ranks", 16), _setting(machine, 8).mesh.ranks, "contradiction", facts.source("ranks"))


def _memory(facts: Facts, machine: Machine) -> Iterator[Claim]:
    """What a rank holds before activations, and whether all of it fits."""
    mean = sum(float(np.mean(each.parameters)) for each in held(_setting(machine, 8)))
    yield facts.claim("parameters_of_a_rank", "parameters of a rank, in the mean over stages", mean)
    for ways, zero, how in ((1, "0", "without optimizer parallel"), (8, "1", "over 8 ways"), (16, "1", "over 16 ways")):
        kept = fixed_bytes(_setting(machine, max(ways, 8), zero=zero)) / 1e9
        yield facts.claim("gigabytes_of_a_rank", f"GB of weights, gradients and state of a rank, {how}", kept, at=ways)
    for ways in WAYS:
        fit = fits(machine, "pangu-200b", mesh={"dp": ways, "pp": 16, "tp": 8}, zero="1")
        name = f"207 B fit 32 GB with optimizer parallel over {ways} ways, one sequence a micro-batch"
        yield facts.truth("memory_gigabytes", name, fit)


def _tables(machine: Machine) -> dict[str, dict[str, float]]:
    return {
        f"{ways} x 8 x 16" + (WITHOUT if zero == "0" else ""): need(
            machine, "pangu-200b", mesh={"dp": ways, "pp": 16, "tp": 8}, zero=zero
        ).table()
        for ways in WAYS
        for zero in ("1", "0")
    }


def _measured(facts: Facts, machine: Machine, desk: Desk) -> Iterator[Claim]:
    """Tokens a second that MindFormers measured with the smaller two."""
    names = ("pangu-2.6b", "pangu-13b")
    steps = desk.each(step, {name: (machine, name, {}) for name in names})
    for run, name in zip(facts.runs("throughput"), names, strict=True):
        totals = steps[name]
        rate = totals["tokens_per_second"] / totals["ranks"]
        yield measured(run, f"{name} on {totals['ranks']} Ascend 910: tokens/s each", rate)


def _inference(facts: Facts, machine: Machine, desk: Desk) -> Iterator[Claim]:
    """What half precision saves, and what keeping keys and values does."""
    base: dict[str, Any] = {"prompt": 24, "new_tokens": 1000, "allow_overcommit": True}
    ways: dict[str, dict[str, Any]] = {
        "fp32": {"precision": "O0"},
        "fp16": {"precision": "O3"},
        "padded": {"precision": "O3", "reuse": False},
    }
    tasks = {name: (machine, "pangu-13b", {**way, **base}) for name, way in ways.items()}
    made = desk.each(inference, tasks, lambda name: f"13 B, {name}")
    runs = {name: Inference(**each) for name, each in made.items()}
    whole = runs.pop("padded")
    for name, each in runs.items():
        gigabytes = each.memory_per_rank_bytes["weights"] / 1e9
        yield facts.claim("gigabytes_13b", f"13 B: GB of {name} weights, output layer shared", gigabytes, at=name)
    for name, expected in (("fp32", False), ("fp16", True)):
        yield facts.truth("gigabytes_13b", f"13 B in {name} run on one Ascend 910", runs[name].fits, target=expected)
    faster = whole.token_seconds / runs["fp16"].token_seconds
    least = facts.value("incremental_speedup")
    name = f"keeping keys and values makes a token {least:.0f} times faster or more (simulated {faster:.2f}, padded to 1,024)"
    yield facts.truth("incremental_speedup", name, faster >= least)
    group = machine.core_group
    roofline = 1024 / (0.4 * group.peak["fp16"]) * group.memory_bandwidth
    yield facts.claim(
        "incremental_roofline", "its roofline: 1,024 tokens at 40 % of peak over weights read once", roofline
    )


def _resize(machine: Machine) -> list[tuple[str, ...]]:
    """What moves when sixteen replicas become eight: by contiguous shards, and by as few bytes as can be."""
    before, after = (_setting(machine, ways, zero="1") for ways in (16, 8))
    state = _state(before) * before.mesh.size("dp")
    moved = resharded(16, 8)
    least = np.full(8, 1 / 16)  # each keeps its own sixteenth and takes one of a replica that leaves
    rows: list[tuple[str, ...]] = []
    for name, received in (("contiguous, as numbered", moved.sum(axis=0)), ("as few bytes as can be", least)):
        each, whole = float(received.max()) * state, float(received.sum()) * state * 128
        seconds = each * after.ranks_per_node / machine.injection
        rows.append((name, f"{each / 1e9:.2f}", f"{whole / 1e12:.2f}", si(seconds, "s", 3)))
    return rows


def _state(setting: Setting) -> float:
    """Bytes of the optimizer's state of a rank, in the mean over stages."""
    return float(np.mean([each.optimizer for each in account(setting, sample_loads(setting)).by_stage]))


def resharded(before: int, after: int) -> Any:
    """Shares of a vector that move when its equal parts on the first ``before`` ranks become parts on the first ``after``.

    ``[sender, receiver]``, nothing on the diagonal: what both have stays.
    """
    old, new = (np.linspace(0, 1, count + 1) for count in (before, after))
    first = np.maximum(old[:-1, None], new[None, :-1])
    last = np.minimum(old[1:, None], new[None, 1:])
    shares = np.maximum(last - first, 0.0)
    shares[np.arange(min(before, after)), np.arange(min(before, after))] = 0.0
    return shares


def _both(steps: dict[int, dict[str, Any]], tables: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    rows = []
    for ways, totals in steps.items():
        needs = (tables[f"{ways} x 8 x 16{ending}"]["total"] for ending in ("", WITHOUT))
        rows.append((str(ways), f"{totals['ranks']:,}", *_cells(totals), *(f"{nbytes / 1e9:.1f}" for nbytes in needs)))
    return rows


def _cells(totals: dict[str, Any]) -> tuple[str, ...]:
    parts, step = totals["breakdown"], totals["step_seconds"]
    return (
        f"{step:.2f}",
        *(f"{parts[key] / step:.1%}" for key in ("tensor_parallel", "pipeline_bubble", "gradient_sync")),
    )
