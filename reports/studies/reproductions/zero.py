"""``reproduce zero``: what ZeRO's stages keep and move, ZeRO++, ZeRO-Offload, and published steps."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ....hardware.machine import Machine, load_machine
from ....workloads.lowering import lower
from ....workloads.memory import FIXED_FP32, update_state_share
from ....workloads.model.model import load_model
from ...content.figures import Bars, Beside
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ...published.read_runs import published_runs
from ...published.run import PublishedRun
from ..claims import Claim
from .desk import Desk, Step, prediction, step
from .facts import Facts, measured
from .quantities import fits, need, sent, zero_volume
from .record import Reproduction

STAGES = ("0", "1", "2", "3")
PLUSPLUS_TEXT = (
    "ZeRO++ against ZeRO-3 on 24 nodes of 16 V100, with four and with one of the nodes' interfaces, 1,024 or 2,048"
    " tokens a GPU and micro-batch. Shapes of the models were not published: GPTs of about the same size stand for"
    " them. Nothing is overlapped."
)


STAGE_3_COLUMNS = ("TFLOP/s a GPU", "published", "simulated", "if shards were no work")
STAGE_3_TEXT = (
    "The batch is 1,536 sequences throughout. DeepSpeed of 2021 gathered each tensor by itself, into a list with a view"
    " for every rank; its work on one such shard was fitted to half of the published rows of that library (athanor fit"
    " library DeepSpeed). Without it rings through all of a node's interfaces would have been far faster than the runs."
)


def build(desk: Desk) -> Reproduction:
    """Count what is kept and moved, and simulate the published rows."""
    facts, machine = Facts("zero"), load_machine("dgx2-v100")
    found = Reproduction("zero", facts.table["title"], machine)
    desk.progress("memory and volumes")
    kept, volumes = _memory(facts, machine), [*_volumes(facts), *_across(facts, machine, desk)]
    rates, stage_3 = _stage_3(facts, desk)
    faster, rows = _plusplus(facts, machine, desk)
    desk.progress("offloading")
    found.claims = [*kept, *_facts(facts), *volumes, *_offload(facts, machine), *rates, *faster]
    pairs = {name.split(":")[0]: (claim.target, claim.simulated) for claim in faster for name in [claim.name]}
    found.parts = [
        ReportPart(
            Section("Bytes of a parameter"),
            [Drawing("memory", "7.5 B parameters on 64 ranks, before activations.", _bytes_of_stages(kept))],
        ),
        ReportPart(Section("ZeRO-3 alone, 175 B", STAGE_3_TEXT, STAGE_3_COLUMNS, stage_3)),
        ReportPart(
            Section("ZeRO++", PLUSPLUS_TEXT, ("", "ZeRO-3 TFLOP/s", "published", "ZeRO++ TFLOP/s", "published"), rows),
            [
                Drawing(
                    "plusplus",
                    "How much faster ZeRO++ is.",
                    Beside(pairs, "speed of ZeRO++ over that of ZeRO-3", "Speed-up of ZeRO++"),
                )
            ],
        ),
    ]
    model = load_model("megatron-7.5b")
    found.inputs = inputs(machine, model, {"mesh": {"dp": 64}, "zero": "0, 1, 2 and 3"})
    return found


def _memory(facts: Facts, machine: Machine) -> list[Claim]:
    """Weights, gradients and state of a rank, by stage."""
    claims = []
    for stage in STAGES:
        kept = need(machine, "megatron-7.5b", mesh={"dp": 64}, zero=stage, global_batch=64, micro_batch=1)
        gigabytes = float(kept.parameters + kept.gradients + kept.optimizer) / 1e9
        claims.append(
            facts.claim("gigabytes", f"GB a rank of 7.5 B parameters on 64, stage {stage}", gigabytes, at=stage)
        )
    return claims


def _facts(facts: Facts) -> Iterator[Claim]:
    """What follows from bytes a parameter alone."""
    yield facts.claim("update_share", "update state under APEX O2", update_state_share("O2"))
    needed = 1e12 * sum(FIXED_FP32.values())
    cards = {"decimal": needed / 32e9, "binary": needed / (32 * 2**30), "mixed": needed / 1e12 * 1024 / 32}
    for how, count in cards.items():
        name = f"V100-32G for a trillion FP32 parameters, {how} units"
        yield facts.claim("v100_for_1t", name, float(np.ceil(count)), at=how)
    parameters = load_model("moda-174t").parameters.total
    for nbytes in (16, 24):
        name = f"PB of 174 T parameters at {nbytes} B"
        yield facts.claim("petabytes_174t", name, parameters * nbytes / 1e15, at=nbytes)


def _volumes(facts: Facts) -> Iterator[Claim]:
    """What a rank sends, in parameters, from the lowered schedule; for as many ranks as make (n - 1)/n one."""
    ranks, model = 64, load_model("megatron-7.5b")
    of_layers = model.depth * model.of_layer(model.stack[0]).total
    for stage in STAGES:
        options: dict[str, Any] = {"mesh": {"dp": ranks}, "zero": stage, "global_batch": ranks, "micro_batch": 1}
        schedule = lower("dgx2-v100", model, **options, recompute="none")
        layers = sent(schedule, lambda operation: operation.task.layer is not None)
        whole = layers / of_layers if stage == "3" else sent(schedule) / model.parameters.total
        volume = whole / 2 * ranks / (ranks - 1)
        yield facts.claim("volume", f"parameters that a rank sends, stage {stage}", volume, at=stage)
    yield Claim("ZeRO's volume over an all-reduce's", 1.0, zero_volume(ranks), "arithmetic", facts.source("volume"))


def _across(facts: Facts, machine: Machine, desk: Desk) -> Iterator[Claim]:
    """What a node's interfaces send, in parameters, from a simulated step of 145.6 B on 1,536 ranks."""
    tasks = {}
    for zero, mesh in (("3", {"dp": 1536}), ("++", {"dp": 96, "fsdp": 16})):
        options: dict[str, Any] = {"mesh": mesh, "zero": zero, "global_batch": 1536, "micro_batch": 1, "chunks": 1}
        tasks[zero] = _step(machine, "megatron-145.6b", recompute="none", **options)
    for zero, totals in desk.each(step, tasks, lambda zero: f"145.6 B, ZeRO stage {zero}").items():
        links = next(each for each in totals["links"] if each["kind"] == "nic.out")
        parameters = load_model("megatron-145.6b").parameters.total
        volume = links["bytes_per_step"] / totals["nodes"] / 2 / parameters
        name = f"parameters that a node sends, ZeRO{'-3' if zero == '3' else '++'}, 96 nodes"
        yield facts.claim("volume_across_nodes", name, volume, at=zero)


def _stage_3(facts: Facts, desk: Desk) -> tuple[list[Claim], list[tuple[str, ...]]]:
    """Stage 3 alone on Selene (Narayanan et al. 2021, table 2); and what its rates would be if shards were no work."""
    claims, rows, machine = [], [], load_machine("selene")
    counts = {run.id: f"{prod(run.plan['mesh'].values())} GPUs" for run in facts.runs("stage_3")}
    made = desk.each(
        prediction,
        {(run.id, library): (run, machine, library) for run in facts.runs("stage_3") for library in (True, False)},
        lambda way: f"gpt3-175b, ZeRO-3 on {counts[way[0]]}",
    )
    for run in facts.runs("stage_3"):
        ranks = counts[run.id]
        (rate, _), (bare, _) = made[run.id, True], made[run.id, False]
        claims.append(measured(run, f"175 B by ZeRO-3 on {ranks}: TFLOP/s a GPU", rate))
        rows.append((ranks, *(f"{each:.0f}" for each in (run.value, rate, bare))))
    return claims, rows


def _plusplus(facts: Facts, machine: Machine, desk: Desk) -> tuple[list[Claim], list[tuple[str, ...]]]:
    """ZeRO++ over ZeRO-3, and the rates behind it."""
    claims, rows = [], []
    tasks: dict[tuple[str, str], Step] = {}
    for run in facts.runs("plusplus"):
        here = machine.changed({"node.interfaces": run.machine_used.node.interfaces})
        for zero, mesh in (("3", {"dp": 384}), ("++", {"dp": 24, "fsdp": 16})):
            options: dict[str, Any] = {
                "mesh": mesh,
                "zero": zero,
                "seq_len": run.model_used.seq_len,
                "global_batch": 384,
            }
            plan = {**options, "micro_batch": 1, "chunks": 1, "recompute": "full"}
            tasks[run.id, zero] = _step(here, str(run.base), **plan)
    made = desk.each(step, tasks, lambda way: f"{way[0]}, ZeRO stage {way[1]}")
    for run in facts.runs("plusplus"):
        before = _without_plusplus(run)
        model, cards = run.model_used, run.machine_used.node.interfaces
        size, tokens = f"{model.parameters.total / 1e9:.0f} B", model.seq_len
        steps = [made[run.id, zero] for zero in ("3", "++")]
        rates = [totals["flops_per_second"] / totals["ranks"] / 1e12 for totals in steps]
        published = [before.value, run.value]
        text = f"{size}, {cards} interface{'s' if cards > 1 else ''}, {tokens:,} tokens"
        source = f"{run.source}; runs {before.id}, {run.id}"
        claims.append(
            Claim(
                f"{text}: ZeRO++ over ZeRO-3 (shape assumed)",
                published[1] / published[0],
                rates[1] / rates[0],
                "fitted" if before.fitted or run.fitted else "predicted",
                source,
            )
        )
        cells = zip(rates, published, strict=True)
        rows.append((text, *(f"{value:.1f}" for pair in cells for value in pair)))
    return claims, rows


def _without_plusplus(run: PublishedRun) -> PublishedRun:
    """The same run with ZeRO-3 alone."""
    alike = (run.publication, run.machine, run.set, run.base, run.shape)
    return next(
        each
        for each in published_runs().values()
        if (each.publication, each.machine, each.set, each.base, each.shape) == alike and each.plan.get("zero") == "3"
    )


def _offload(facts: Facts, machine: Machine) -> Iterator[Claim]:
    """What fits one V100 of 32 GB with the optimizer in the host's memory, and what does not without."""
    plan: dict[str, Any] = {
        "mesh": {"dp": 1},
        "zero": "2",  # what ZeRO-Offload builds on: gradients leave as they come
        "micro_batch": 1,
        "tokens_per_rank": 2048,
        "precision": "O2",
    }
    for offload, expected in (("optimizer", True), ("none", False)):
        held = "with state in host memory" if expected else "without offloading"
        fit = fits(machine, "gpt3-13b", recompute="full", offload=offload, **plan)
        yield facts.truth("largest_on_one_v100", f"13 B fit one V100-32G {held}", fit, target=expected)


def _step(machine: Machine, model: str, **options: Any) -> Step:
    """A step, whether it fits or not: published runs had other activations."""
    return machine, model, {"precision": "O2", "pipeline": "1f1b", **options, "allow_overcommit": True}


def _bytes_of_stages(claims: list[Claim]) -> Bars:
    sizes = {f"stage {stage}": claim.simulated for stage, claim in zip(STAGES, claims, strict=True)}
    return Bars(sizes, "GB a rank", "Weights, gradients and state", "ZeRO", (32.0, "a V100 of 32 GB"))
