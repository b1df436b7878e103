"""``reproduce megatron``: published steps of Megatron-LM's tensor, pipeline and data parallelism, and its formulas."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ...hardware.machine import Machine, load_machine
from ...sim.pipeline import play
from ...sim.simulate import simulate
from ...workloads.lowering import lower
from ...workloads.model import Model, load_model
from ...workloads.pipelines import find_pipeline
from ...workloads.schedule import Exchange
from ...workloads.setting import Setting
from .. import plots, reproduction_plots
from ..claims import Claim
from ..report import Section, inputs
from .facts import Facts, measured
from .quantities import sent, training_flops
from .record import Drawing, Part, Progress, Reproduction

MODELS = {"GPT 22B": "gpt-22b", "GPT 175B": "gpt3-175b", "GPT 530B": "mt-nlg-530b", "GPT 1T": "gpt-1t"}
"""Our names of the models of Korthikanti et al. 2022."""

EFFICIENCY_TEXT = (
    "Every row is predicted, with one constant for all: products reach an assumed share of the accelerator's peak"
    " (calibration.gemm_efficiency), which nobody has fitted to these rows. Measured products reach less where they"
    " are small or their tiles do not fill the accelerator, so errors of one sign are to be expected; compare rows"
    " with each other."
)


def build(progress: Progress = lambda text: None) -> Reproduction:
    """Simulate the published rows, and count what the formulas count."""
    facts, machine = Facts("megatron"), load_machine("selene")
    found = Reproduction("megatron", facts.table["title"], machine)
    rates, summaries = _rates(facts, machine, progress)
    times = _times(facts, machine, progress)
    progress("formulas")
    found.claims = [*_formulas(facts), *_gpt3(facts), _interleaving(facts, machine), *rates, *times]
    found.parts = [
        Part(
            Section(
                "Rows that were measured",
                EFFICIENCY_TEXT,
                ("claim", "published", "simulated", "error"),
                _rows([*rates, *times]),
            ),
            [
                Drawing(
                    "rates", "TFLOP/s a GPU, counted as the paper counts.", partial(_drawn, rates, "TFLOP/s a GPU")
                ),
                Drawing("times", "Full and selective recomputation.", partial(_drawn, times, "seconds a step")),
            ],
            shown=False,
        ),
        Part(
            Section("Where the time goes"),
            [Drawing("breakdown", "Rows of the weak scaling.", partial(plots.breakdown, summaries))],
        ),
    ]
    found.inputs = inputs(machine, load_model("gpt3-175b"), load_model("gpt3-175b").plan)
    return found


def _rates(facts: Facts, machine: Machine, progress: Progress) -> tuple[list[Claim], dict[str, Any]]:
    """TFLOP/s a GPU of the two tables of Narayanan et al. 2021, and the summaries of the weak scaling's steps."""
    claims, summaries = [], {}
    for row in facts.rows("weak_scaling"):
        name = f"megatron-{row['model'].removeprefix('GPT ').lower()}"
        progress(name)
        totals = simulate(machine, name, allow_overcommit=True).summary()
        summaries[row["model"].removeprefix("GPT ")] = totals
        claims.append(_rate(row, name, load_model(name), totals, f"{row['num_accelerators']} GPUs"))
    for row in facts.rows("strong_scaling"):
        mesh = {"pp": int(row["pp"]), "dp": int(row["dp"]), "tp": int(row["tp"])}
        progress(f"gpt3-175b on {row['num_accelerators']} GPUs")
        totals = simulate(machine, "gpt3-175b", mesh=mesh, allow_overcommit=True).summary()
        claims.append(_rate(row, "gpt3-175b", load_model("gpt3-175b"), totals, f"{row['num_accelerators']} GPUs"))
    return claims, summaries


def _rate(row: dict[str, str], name: str, model: Model, totals: dict[str, Any], where: str) -> Claim:
    flops = training_flops(model, int(row["global_batch"]), again=True)
    rate = flops / totals["step_seconds"] / int(row["num_accelerators"]) / 1e12
    return measured(row, f"{name} on {where}: TFLOP/s a GPU", rate)


def _times(facts: Facts, machine: Machine, progress: Progress) -> list[Claim]:
    """Seconds a step with full and with selective recomputation (Korthikanti et al. 2022, table 5)."""
    claims = []
    for row in facts.rows("recomputation"):
        name, again = MODELS[row["model"]], row["recompute"]
        mesh = {axis: int(row[axis]) for axis in ("pp", "tp") if int(row[axis]) > 1}
        options: dict[str, Any] = {
            "mesh": mesh,
            "global_batch": int(row["global_batch"]),
            "micro_batch": int(row["micro_batch"]),
            "pipeline": "interleaved" if int(row["interleave"]) > 1 else "1f1b",
            "chunks": int(row["interleave"]),
            "recompute": again,
            "sequence_parallel": row["sequence_parallel"] == "yes",
            "precision": "O2",
        }
        progress(f"{name}, {again} recomputation")
        totals = simulate(machine, name, allow_overcommit=True, **options).summary()
        claims.append(measured(row, f"{name}, {again} recomputation: seconds a step", totals["step_seconds"]))
    return claims


def _formulas(facts: Facts) -> Iterator[Claim]:
    """Bubbles of the orders themselves, and what tensor parallelism moves."""
    for name in ("gpt3-175b", "megatron-145.6b"):
        setting = Setting.of("selene", name, {})
        stages, chunks, count = setting.mesh.size("pp"), setting.plan.chunks, setting.batch.micro_batches
        formula = (stages - 1) / (chunks * count)
        cut = f" of {chunks} chunks" if chunks > 1 else ""
        text = f"{name}: bubble over the ideal time, {stages} stages{cut}, {count} micro-batches"
        bubble = bubble_share(setting.plan.pipeline, stages, count, chunks)
        yield Claim(text, formula, bubble, "exact", facts.source("bubble"))
    model = load_model("gpt-22b")
    schedule = lower("selene", model, sequence_parallel=False, recompute="none")
    layers = [each for each in schedule.operations if each.name.startswith("l")]
    payloads = sum(float(each.work.nbytes) for each in layers if isinstance(each.work, Exchange)) / model.layers
    whole = 2.0 * model.plan["global_batch"] * model.seq_len * model.hidden
    yield Claim(
        "all-reduces of a layer's activations, forward and backward",
        4,
        payloads / whole,
        "exact",
        facts.source("tensor_volume"),
    )
    tensor, sequence = (
        sent(each, lambda operation: operation.name.startswith("l"))
        for each in (schedule, lower("selene", model, recompute="none"))
    )
    again = 2 * model.layers * 7 / 8 * whole  # inputs are gathered once more for the gradients of weights
    yield Claim(
        "sequence parallelism's volume over tensor parallelism's, beside inputs that are gathered again",
        1,
        (sequence - again) / tensor,
        "exact",
        facts.source("sequence_volume"),
    )


def bubble_share(pipeline: str, stages: int, micro_batches: int, chunks: int) -> float:
    """Idle time of a stage over its work, where forward passes take one unit, backward passes two and transfers none."""
    orders = find_pipeline(pipeline).orders(stages, micro_batches, chunks)
    timing = play(orders, lambda stage, slot: {"F": 1.0, "B": 2.0, "W": 1.0}[slot.kind] / chunks, lambda *between: 0.0)
    return timing.seconds / float(timing.parts(0).busy) - 1.0


def _gpt3(facts: Facts) -> Iterator[Claim]:
    """What one training of GPT-3 takes and costs, with the rate and the price that the source's figure goes with."""
    flops = 6.0 * load_model("gpt3-175b").parameters.total * 300e9
    seconds = flops / 28e12
    condition = "at 28 TFLOP/s a V100"
    yield facts.claim("gpt3_flops", "GPT-3: FLOPs of 300 B tokens, 6 a parameter and token", flops)
    yield facts.claim("gpt3_v100_years", f"GPT-3: V100 years, {condition}", seconds / (365.25 * 86400))
    yield facts.claim("gpt3_dollars", f"GPT-3: dollars, {condition} and $1.5 an hour", seconds / 3600 * 1.5)
    cluster = load_machine("azure-gpt3")
    accelerators = cluster.nodes * cluster.node.core_groups
    yield facts.claim("gpt3_accelerators", "GPT-3: accelerators of its cluster", accelerators)
    yield facts.claim("gpt3_days", f"GPT-3: days on all of them, {condition}", seconds / accelerators / 86400)


def _interleaving(facts: Facts, machine: Machine) -> Claim:
    """What two chunks a stage gain where micro-batches are few: 175 B on 96 GPUs, as in the paper's figure."""
    plan: dict[str, Any] = {"mesh": {"pp": 12, "tp": 8}, "global_batch": 12, "micro_batch": 1}
    plain, chunked = (
        simulate(machine, "gpt3-175b", allow_overcommit=True, **plan, pipeline=pipeline, chunks=chunks).summary()
        for pipeline, chunks in (("1f1b", 1), ("interleaved", 2))
    )
    gain = plain["step_seconds"] / chunked["step_seconds"] - 1.0
    least = facts.value("interleaving_gain")
    return facts.truth(
        "interleaving_gain",
        f"interleaving gains {least:.0%} or more, 175 B on 96 GPUs, 12 sequences (simulated {gain:.0%})",
        gain >= least,
    )


def _rows(claims: list[Claim]) -> list[tuple[str, ...]]:
    return [
        (claim.name, f"{claim.target:.4g}", f"{claim.simulated:.4g}", f"{claim.relative_error:+.1%}")
        for claim in claims
    ]


def _drawn(claims: list[Claim], what: str) -> Any:
    pairs = {
        claim.name.split(":")[0].replace(" recomputation", ""): (claim.target, claim.simulated) for claim in claims
    }
    return reproduction_plots.beside(pairs, what, "Published and simulated")
