"""The summary of a run, the same for the simulator and the MPI runtime: what ran, how fast, where its time went, what it held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...hardware.precisions import Precision
from ..loads.loads import LoadStatistics
from ..memory import Memory
from ..model.flops import forward_flops
from ..plan.setting import Setting
from ..schedule.operation import CATEGORIES, PHASES

Exposed = dict[str, dict[str, float]]
"""Seconds by phase and category, means over ranks."""


def summarise(
    setting: Setting,
    need: Memory,
    balance: LoadStatistics,
    seconds: Sequence[float],
    exposed: Sequence[Exposed],
    flops: float,
    products: Sequence[Mapping[Precision, float]],
    scale: float = 1.0,
) -> dict[str, Any]:
    """The keys of the JSON contract that do not depend on who ran the steps; times are means over the steps.

    ``seconds`` and ``exposed`` are of each step, ``flops`` of all ranks in one; ``products`` are those of matrix products in each
    step, by format. ``scale``: of the model's work so much was done.
    """
    layout, mesh, batch = setting.layout, setting.mesh, setting.batch
    step = float(np.mean(seconds))
    mean = {
        phase: {key: float(np.mean([each[phase][key] for each in exposed])) for key in CATEGORIES} for phase in PHASES
    }
    counts, load = setting.model.parameters, balance.summary()
    dropped = load["dropped_fraction"]
    rate = mesh.replicas * batch.tokens / step
    wanted = (
        forward_flops(
            setting.model,
            mesh.replicas * batch.tokens,
            batch.seq_len,
            setting.top_k,
            carried=1.0 - dropped,
            documents=setting.plan.documents,
        ).trained
        * scale
    )
    peak = mesh.ranks * _peak(setting, products)
    return {
        "machine": setting.machine.name,
        "model": setting.model.name,
        "mesh": dict(zip(mesh.axes, mesh.shape, strict=True)),
        "placement": setting.placement,
        "ranks": mesh.ranks,
        "nodes": layout.nodes,
        "supernodes": layout.supernodes,
        "step_seconds": step,
        "each_step_seconds": [float(each) for each in seconds],
        "tokens_per_second": rate * (1.0 - dropped),
        "dropped_tokens_per_second": rate * dropped,
        "flops_per_second": flops / step,
        "peak_fraction": flops / step / peak,
        "mfu": wanted / step / peak,
        "hfu": flops / step / peak,
        "flops_per_step": flops,
        "model_flops_per_step": wanted,
        "attention_kernel": setting.attention_kernel,
        "tokens_per_rank": batch.tokens,
        "micro_batches": batch.micro_batches,
        "parameters": {**counts.model_dump(), "total": counts.total},
        "breakdown": {category: sum(mean[phase][category] for phase in PHASES) for category in CATEGORIES},
        "phases": {phase: sum(mean[phase].values()) for phase in PHASES},
        "breakdown_by_phase": mean,
        "each_step_phases": {phase: [sum(each[phase].values()) for each in exposed] for phase in PHASES},
        "each_step_breakdown": {
            category: [sum(each[phase][category] for phase in PHASES) for each in exposed] for category in CATEGORIES
        },
        "memory_per_rank_bytes": need.table(),
        "fits": need.fits,
        "load_balance": load,
        "fitted_constants": setting.machine.fitted(),
        "seed": setting.plan.seed,
    }


def cautions(setting: Setting, need: Memory, notes: Sequence[str]) -> list[str]:
    """What to know before believing the run."""
    found = list(notes)
    if not need.fits:
        found.append(f"needs {need}: would not run")
    if unsourced := setting.machine.unsourced():
        more = f" and {len(unsourced) - 1} more" if len(unsourced) > 1 else ""
        found.append(f"{setting.machine.name} gives no source for {unsourced[0]}{more}")
    batch, layout = setting.batch, setting.layout
    if batch.micro_tokens % batch.seq_len:
        found.append(
            f"a micro-batch of {batch.micro_tokens:,} tokens is no whole number of sequences of {batch.seq_len:,}"
        )
    if setting.own_micro_batch:
        found.append(
            f"the micro-batch of {setting.own_micro_batch:,} sequences that {setting.model.name} recommends does not divide"
            f" {batch.tokens // batch.seq_len:,} of a rank: micro-batches of {batch.micro_tokens // batch.seq_len:,} instead"
            " (--micro-batch)"
        )
    if setting.placement != setting.plan.placement:
        found.append(
            f"--placement {setting.plan.placement}, which nobody typed, does not hold --mesh {setting.mesh} on"
            f" {setting.machine.name}: ranks fill its nodes one after another instead (--placement {setting.placement})"
        )
    if setting.placement == "moda" and layout.scattered("dp"):
        found.append(
            f"--placement moda: no two ranks of dp={setting.mesh.size('dp')} share a supernode, since no divisor of it fits;"
            " --placement block:dp,ep keeps them together"
        )
    if layout.nodes * setting.ranks_per_node != setting.mesh.ranks:
        found.append(
            f"{setting.mesh.ranks:,} ranks stand on {layout.nodes:,} nodes that have room for {setting.ranks_per_node} each"
        )
    return found


def _peak(setting: Setting, products: Sequence[Mapping[Precision, float]]) -> float:
    """FLOP/s at which a rank would run all products if each ran at the peak of its format.

    Where products with weights have a format of their own (fp8), the peak is theirs for all that the same parts multiply.
    """
    processor, flops, seconds = setting.processor, 0.0, 0.0
    for step, found in enumerate(products):
        own = {formats.compute: formats.gemm for formats in setting.plan.precisions.at(step).values()}
        flops += sum(found.values())
        seconds += sum(amount / processor.peak(own.get(format, format)) for format, amount in found.items())
    return flops / seconds if seconds else max(processor.core_group.peak.values()) * processor.groups
