"""``reproduce m6``: what fits which GPUs, how speed goes with experts and with k, and the arithmetic of cost and energy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ....hardware.machine import Machine, load_machine
from ....hardware.precisions import BYTES
from ....workloads.memory import FIXED_FP32
from ....workloads.model.model import load_model
from ....workloads.model.precision import POLICIES
from ....workloads.optimizers import Adam
from ....workloads.plan.setting import Setting
from ...content.figures import MemoryByPart, Series, StepsByCategory
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ..claims import Claim
from .desk import Desk, Step, step
from .facts import Facts
from .quantities import fits, fixed_bytes, need
from .record import Reproduction

EXPERTS = (128, 256, 512, 1024)
CHOICES = (1, 2, 4, 8)
STEP: dict[str, Any] = {"mesh": {"ep": 128}, "tokens_per_rank": 8192, "zero": "0", "balancer": "capacity:1.25"}
"""A step of 100 B on 128 A100: 16 sequences of 512 tokens a GPU, which is assumed, as samples were not described."""

KILOWATTS = 0.3
"""Power of a GPU in the arithmetic of energy."""


def build(desk: Desk) -> Reproduction:
    """Parameters, memory, steps over experts and k, cost and energy."""
    facts, machine = Facts("m6"), load_machine("selene")
    v100 = load_machine("dgx2-v100")
    found = Reproduction("m6", facts.table["title"], machine)
    desk.progress("memory")
    tables = _tables(machine, v100)
    found.claims = [*_parameters(facts), *_memory(facts, machine, v100)]
    by_experts, by_choice = _steps(machine, desk)
    found.claims += [*_scaling(facts, by_experts, by_choice), *_throughput(facts, machine, desk), *_cost(facts)]
    rows = [(f"{experts:,}", *_cells(totals)) for experts, totals in by_experts.items()]
    ways = [(f"top-{k}", *_cells(one), *_cells(other)) for k, (one, other) in by_choice.items()]
    columns = ("step s", "compute", "all-to-all", "optimizer")
    found.parts = [
        ReportPart(
            Section("Memory"),
            [
                Drawing(
                    "memory",
                    "What a GPU needs, as M6's plans are and without what makes them fit.",
                    MemoryByPart(tables, "model and its plan"),
                )
            ],
        ),
        ReportPart(
            Section(
                "Experts of a layer, 128 A100",
                "The work of a token stays; the optimizer's grows with what it updates.",
                ("experts", *columns),
                rows,
            ),
            [Drawing("experts", "Steps of the same batch with ever more experts.", _drawn_experts(by_experts))],
        ),
        ReportPart(
            Section(
                "Experts of a token, 512 in a layer",
                "Left: top-k. Right: k prototypes with top-1 each, under the same capacity.",
                ("", *columns, *(f"{each}, prototypes" for each in columns)),
                ways,
            ),
            [Drawing("choices", "Steps over k, by top-k and by k prototypes.", _drawn_choices(by_choice))],
        ),
    ]
    found.inputs = inputs(machine, load_model("m6-100b"), {**load_model("m6-100b").plan, **STEP})
    return found


def _parameters(facts: Facts) -> Iterator[Claim]:
    for name in facts.values["parameters"]:
        assumed = " (shape assumed)" if name == "m6-10b" else ""
        yield facts.claim("parameters", f"{name}: parameters{assumed}", load_model(name).parameters.total, at=name)


def _memory(facts: Facts, a100: Machine, v100: Machine) -> Iterator[Claim]:
    """What a GPU needs, and whether it has it."""
    a100 = a100.changed(
        {"core_group.framework": None, "core_group.reserved_memory": None}
    )  # its arithmetic has neither
    setting = Setting.of(a100, "m6-10b", {"tokens_per_rank": 512, "micro_batch": 1})
    each = fixed_bytes(setting) / setting.model.parameters.total
    yield facts.claim("gigabytes_10b", "10 B on 8 GPUs by ZeRO-2: GB before activations", each * 10)
    for gigabytes, recompute, expected in (
        (32, "full", False),
        (40, "none", False),
        (40, "full", True),
        (80, "full", True),
    ):
        with_memory = a100.changed({"core_group.memory": 1e9 * gigabytes})
        again = "recomputed" if recompute == "full" else "kept"
        fit = fits(with_memory, "m6-10b", tokens_per_rank=512, micro_batch=1, recompute=recompute)
        name = f"10 B fit 8 GPUs of {gigabytes} GB, activations {again}"
        yield facts.truth("gigabytes_10b", name, fit, target=expected)
    kept = need(a100, "m6-100b", **STEP)
    whole = float(kept.parameters + kept.gradients + kept.optimizer) / 1e9
    yield facts.claim(
        "gigabytes_100b", "100 B on 128 GPUs: GB of experts and their state", _experts_each("m6-100b", 128) / 1e9
    )
    yield facts.claim("gigabytes_100b", "the same with what every GPU has", whole, "contradiction")
    for name in ("m6-1t", "m6-10t"):
        gpus, memory = facts.value("accelerators", name), v100.core_group.memory
        nominal = facts.value("parameters", name)
        yield facts.claim(
            "bytes_a_parameter", f"{name}: bytes a parameter of its GPUs of 32 GB", gpus * memory / nominal, at=name
        )
    small: dict[str, Any] = {"tokens_per_rank": 4096, "micro_batch": 1}
    fit = fits(v100, "m6-1t", **small)
    yield facts.truth("bytes_a_parameter", "1 T with Adam (16 B) fits 480 V100-32G", fit, target=False)
    fit = fits(v100, "m6-1t", offload="optimizer", **small)
    yield facts.truth("offload", "the same with the optimizer's state in host memory", fit)
    formats = POLICIES["O2"]["expert"]
    adam = BYTES[formats.weight] + BYTES[formats.gradient] + Adam().state_bytes(formats)
    cards = float(np.ceil(1e12 * adam / v100.core_group.memory))
    gpus = facts.value("accelerators", "m6-1t")
    yield Claim(
        "V100-32G for 1 T at 16 B a parameter, against the 480 used",
        gpus,
        cards,
        "contradiction",
        facts.source("accelerators"),
    )
    cards = float(np.ceil(1e12 * sum(FIXED_FP32.values()) / v100.core_group.memory))
    yield Claim(
        "the same at 24 B, as BaGuaLu's authors count (768 in mixed units)",
        gpus,
        cards,
        "contradiction",
        facts.source("accelerators"),
    )
    weights = 2.0 * load_model("m6-10t").parameters.total
    gpus, host = facts.value("accelerators", "m6-10t"), facts.value("host_gigabytes_10t")
    for gigabytes, expected in ((32, False), (80, True)):
        name = f"half-precision weights of 10 T fit 512 GPUs of {gigabytes} GB"
        yield facts.truth("bytes_a_parameter", name, weights <= gpus * gigabytes * 1e9, "arithmetic", target=expected)
    yield facts.claim(
        "host_gigabytes_10t",
        "10 T: GB of host memory a GPU at 16 B",
        facts.value("parameters", "m6-10t") * adam / gpus / 1e9,
    )
    hosts = v100.changed({"node.host_memory": 1.05e9 * host * v100.node.core_groups})
    for gigabytes in (32, 80):
        machine = hosts.changed({"core_group.memory": 1e9 * gigabytes})
        fit = fits(machine, "m6-10t", offload="none", **small)
        yield facts.truth(
            "host_gigabytes_10t", f"10 T fit 512 GPUs of {gigabytes} GB without offloading", fit, target=False
        )
    fit = fits(hosts, "m6-10t", **small)
    yield facts.truth("host_gigabytes_10t", f"10 T fit 512 GPUs of 32 GB with hosts of {1.05 * host:.0f} GB a GPU", fit)


def _experts_each(name: str, ranks: int) -> float:
    """Bytes of a rank's experts at 16 B a parameter."""
    return 16.0 * load_model(name).parameters.expert / ranks


def _tables(a100: Machine, v100: Machine) -> dict[str, dict[str, float]]:
    """Memory by part of the plans that the figure compares."""
    small: dict[str, Any] = {"tokens_per_rank": 4096, "micro_batch": 1}
    forty = a100.changed({"core_group.memory": 40e9})
    return {
        "10 B": need(forty, "m6-10b", tokens_per_rank=512, micro_batch=1).table(),
        "10 B, kept": need(forty, "m6-10b", tokens_per_rank=512, micro_batch=1, recompute="none").table(),
        "100 B": need(a100, "m6-100b", **STEP).table(),
        "1 T": need(v100, "m6-1t", **small).table(),
        "1 T, offloaded": need(v100, "m6-1t", offload="optimizer", **small).table(),
        "10 T, offloaded": need(v100, "m6-10t", **small).table(),
    }


def _steps(machine: Machine, desk: Desk) -> tuple[dict[int, Any], dict[int, tuple[Any, Any]]]:
    """Summaries over the number of experts, and over k by top-k and by k prototypes."""
    model = load_model("m6-100b")
    tasks: dict[str, Step] = {f"{experts} experts": (machine, model.with_experts(experts), STEP) for experts in EXPERTS}
    for k in CHOICES:
        tasks |= {f"top-{k}": (machine, model, {**STEP, "top_k": k})}
        tasks |= {f"{k} prototypes": (machine, model, {**STEP, "prototypes": k})}
    made = desk.each(step, tasks)
    by_experts = {experts: made[f"{experts} experts"] for experts in EXPERTS}
    return by_experts, {k: (made[f"top-{k}"], made[f"{k} prototypes"]) for k in CHOICES}


def _scaling(facts: Facts, by_experts: dict[int, Any], by_choice: dict[int, tuple[Any, Any]]) -> Iterator[Claim]:
    """Work over experts, and steps over k."""
    fewest, most = by_experts[EXPERTS[0]], by_experts[EXPERTS[-1]]
    for what, key in (("computed", "compute"), ("exchanged", "all_to_all")):
        ratio = _passes(most, key) / _passes(fewest, key)
        name = f"seconds {what} in forward and backward passes, {EXPERTS[-1]:,} experts over {EXPERTS[0]}"
        yield Claim(name, 1.0, ratio, "predicted", facts.source("experts"))
    top = [one["step_seconds"] for one, _ in by_choice.values()]
    yield facts.truth("prototypes", "steps grow with k of top-k", all(a < b for a, b in pairwise(top)))
    for k in CHOICES[1:]:
        one, other = (each["step_seconds"] for each in by_choice[k])
        name = f"{k} prototypes of top-1 are no slower than top-{k} (simulated {other / one - 1:+.2%})"
        yield facts.truth("prototypes", name, other <= one)


def _passes(totals: dict[str, Any], key: str) -> float:
    return float(sum(totals["breakdown_by_phase"][phase][key] for phase in ("forward", "backward")))


def _throughput(facts: Facts, machine: Machine, desk: Desk) -> Iterator[Claim]:
    """Samples a second, of a length that nobody has published."""
    total, gpus = facts.value("samples_per_second"), facts.value("accelerators", "m6-100b")
    yield facts.claim("samples_per_second_each", "100 B: samples/s a GPU of 128", total / gpus)
    plan: dict[str, Any] = {"tokens_per_rank": 8192, "micro_batch": 16, "allow_overcommit": True}
    tasks: dict[str, Step] = {"m6-100b": (machine, "m6-100b", STEP), "m6-10b": (machine, "m6-10b", plan)}
    moe, dense = desk.each(step, tasks).values()
    length = moe["tokens_per_second"] / total
    name = f"100 B on 128 A100: samples/s, of 512 tokens (assumed; of {length:,.0f} they would be {total:,.0f}/s)"
    yield facts.claim("samples_per_second", name, moe["tokens_per_second"] / 512, "predicted")
    faster = (moe["tokens_per_second"] / moe["ranks"]) / (dense["tokens_per_second"] / dense["ranks"])
    name = f"100 B with experts trains more samples a GPU than dense 10 B (simulated {faster:.1f}x)"
    yield facts.truth("experts", name, faster > 1)


def _cost(facts: Facts) -> Iterator[Claim]:
    """GPU days, energy and devices: arithmetic of the published figures."""
    days = {}
    for name in ("m6-1t", "m6-10t"):
        days[name] = facts.value("accelerators", name) * facts.value("days", name)
        yield facts.claim("gpu_days", f"{name}: GPU days", days[name], at=name)
    yield facts.claim("gpu_days_ratio", "GPU days of 10 T over those of 1 T", days["m6-10t"] / days["m6-1t"])
    gpt3 = facts.value("megawatt_hours", "gpt3-175b")
    for name, expected in (("m6-1t", True), ("m6-10t", False)):
        energy = days[name] * 24 * KILOWATTS / 1e3
        yield facts.claim("megawatt_hours", f"{name}: MWh at {KILOWATTS:.1f} kW a GPU", energy, at=name)
        below = energy < facts.value("energy_share") * gpt3
        text = f"{name}: below 1/100 of GPT-3's energy ({energy / gpt3:.1%})"
        yield facts.truth("energy_share", text, below, "arithmetic", target=expected)
    share = facts.value("accelerators", "m6-1t") / 2048
    yield facts.claim("switch_devices_share", "devices of M6-T over those of Switch", share)


def _cells(totals: dict[str, Any]) -> tuple[str, ...]:
    parts = totals["breakdown"]
    return (f"{totals['step_seconds']:.4f}", *(f"{parts[key]:.4f}" for key in ("compute", "all_to_all", "optimizer")))


def _drawn_experts(by_experts: dict[int, Any]) -> StepsByCategory:
    named = {f"{experts:,}": totals for experts, totals in by_experts.items()}
    return StepsByCategory(named, "Steps of ever more experts", "experts of a layer")


def _drawn_choices(by_choice: dict[int, tuple[Any, Any]]) -> Series:
    curves = {
        name: [(k, pair[which]["step_seconds"]) for k, pair in by_choice.items()]
        for which, name in enumerate(("top-k", "k prototypes of top-1"))
    }
    return Series(curves, "experts of a token, k", "seconds a step", "Steps of ever more experts a token")
