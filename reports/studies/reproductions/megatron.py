"""``reproduce megatron``: published steps of Megatron-LM's tensor, pipeline and data parallelism, and its formulas."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from ....hardware.machine import Machine, load_machine
from ....sim.engine.pipeline_timing import play
from ....sim.simulate import simulate
from ....workloads.lowering import lower
from ....workloads.model.model import load_model
from ....workloads.pipelines import find_pipeline
from ....workloads.plan.setting import Setting
from ....workloads.schedule.work import Exchange
from ...content.figures import Beside, Breakdown
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ..claims import Claim
from .desk import Desk, prediction
from .facts import Facts, measured
from .quantities import sent
from .record import Reproduction

EFFICIENCY_TEXT = (
    "One set of constants for all rows. Those of the accelerator were fitted to every second published row about it"
    " (athanor fit accelerator A100): rows among these are called fitted, the others predicted. What each run's library"
    " did, such as adding gradients up inside products, is that of its time; athanor validate has all sources."
)


def build(desk: Desk) -> Reproduction:
    """Simulate the published rows, and count what the formulas count."""
    facts, machine = Facts("megatron"), load_machine("selene")
    found = Reproduction("megatron", facts.table["title"], machine)
    rates, summaries = _rates(facts, machine, desk)
    times = _times(facts, machine, desk)
    desk.progress("formulas")
    found.claims = [*_formulas(facts), *_gpt3(facts), _interleaving(facts, machine), *rates, *times]
    found.parts = [
        ReportPart(
            Section(
                "Rows that were measured",
                EFFICIENCY_TEXT,
                ("claim", "published", "simulated", "error"),
                _rows([*rates, *times]),
            ),
            [
                Drawing("rates", "TFLOP/s a GPU, counted as the paper counts.", _drawn(rates, "TFLOP/s a GPU")),
                Drawing("times", "Full and selective recomputation.", _drawn(times, "seconds a step")),
            ],
            shown=False,
        ),
        ReportPart(
            Section("Where the time goes"),
            [Drawing("breakdown", "Rows of the weak scaling.", Breakdown(summaries, "model and GPUs"))],
        ),
    ]
    found.inputs = inputs(machine, load_model("gpt3-175b"), load_model("gpt3-175b").plan)
    return found


def _rates(facts: Facts, machine: Machine, desk: Desk) -> tuple[list[Claim], dict[str, Any]]:
    """TFLOP/s a GPU of the two tables of Narayanan et al. 2021, and the summaries of the weak scaling's steps."""
    claims, summaries = [], {}
    runs = [*facts.runs("weak_scaling"), *facts.runs("strong_scaling")]
    named = {run.id: f"{run.model} on {prod(run.plan['mesh'].values())} GPUs" for run in runs}
    made = desk.each(prediction, {run.id: (run, machine, True) for run in runs}, lambda name: named[name])
    for run in runs:
        ranks, text = prod(run.plan["mesh"].values()), named[run.id]
        rate, totals = made[run.id]
        claims.append(measured(run, f"{text}: TFLOP/s a GPU", rate))
        summaries[f"{run.model}, {ranks} GPUs"] = totals
    return claims, dict(list(summaries.items())[: len(facts.runs("weak_scaling"))])


def _times(facts: Facts, machine: Machine, desk: Desk) -> list[Claim]:
    """Seconds a step with full and with selective recomputation (Korthikanti et al. 2022, table 5)."""
    runs = {f"{run.model}, {run.plan['recompute']} recomputation": run for run in facts.runs("recomputation")}
    made = desk.each(prediction, {text: (run, machine, True) for text, run in runs.items()})
    return [measured(run, f"{text}: seconds a step", made[text][0]) for text, run in runs.items()]


def _formulas(facts: Facts) -> Iterator[Claim]:
    """Bubbles of the orders themselves, and what tensor parallelism moves."""
    for name in ("gpt3-175b", "megatron-145.6b"):
        setting = Setting.of("selene", name, {})
        stages, chunks, count = setting.mesh.size("pp"), setting.plan.chunks, setting.batch.micro_batches
        formula = (stages - 1) / (chunks * count)
        cut = f" of {chunks} chunks" if chunks > 1 else ""
        text = f"{name}: bubble over the ideal time, {stages} stages{cut}, {count} micro-batches"
        bubble = bubble_share(setting.plan.pipeline, stages, count, chunks)
        yield Claim(text, formula, bubble, "arithmetic", facts.source("bubble"))
    model = load_model("gpt-22b")
    schedule = lower("selene", model, sequence_parallel=False, recompute="none")
    layers = [each for each in schedule.operations if each.task.layer is not None]
    payloads = sum(float(each.work.nbytes) for each in layers if isinstance(each.work, Exchange)) / model.layers
    whole = 2.0 * model.plan["global_batch"] * model.seq_len * model.hidden
    yield Claim(
        "all-reduces of a layer's activations, forward and backward",
        4,
        payloads / whole,
        "arithmetic",
        facts.source("tensor_volume"),
    )
    tensor, sequence = (
        sent(each, lambda operation: operation.task.layer is not None)
        for each in (schedule, lower("selene", model, recompute="none"))
    )
    again = 2 * model.layers * 7 / 8 * whole  # inputs are gathered once more for the gradients of weights
    yield Claim(
        "sequence parallelism's volume over tensor parallelism's, beside inputs that are gathered again",
        1,
        (sequence - again) / tensor,
        "arithmetic",
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


def _drawn(claims: list[Claim], what: str) -> Beside:
    pairs = {
        claim.name.split(":")[0].replace(" recomputation", ""): (claim.target, claim.simulated) for claim in claims
    }
    return Beside(pairs, what, "Published and simulated")
