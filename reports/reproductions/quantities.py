"""Quantities that several reproductions compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...hardware.machine import Machine
from ...hardware.precisions import BYTES
from ...workloads.collectives import rounds
from ...workloads.lowering import lower_step
from ...workloads.memory import Memory, memory
from ...workloads.model import Model
from ...workloads.schedule import Exchange, Operation, Schedule
from ...workloads.setting import Setting
from ...workloads.sharding import held, shards


def need(machine: str | Path | Machine, model: str | Path | Model, **options: Any) -> Memory:
    """Memory of the fullest rank of a plan, whether it fits or not."""
    setting = Setting.of(machine, model, options)
    return memory(setting, lower_step(setting)[1])


def fits(machine: str | Path | Machine, model: str | Path | Model, **options: Any) -> float:
    """Whether a plan fits: 1 or 0."""
    return float(need(machine, model, **options).fits)


def zero_volume(ranks: int) -> float:
    """Bytes that a rank sends in a reduce-scatter and an all-gather, over those of an all-reduce."""

    def volume(operation: str) -> float:
        return sum(each.share * each.steps for each in rounds(operation, "ring", 1, ranks))

    return (volume("reduce-scatter") + volume("all-gather")) / volume("all-reduce")


SENT = {
    "all-reduce": lambda ranks: 2 * (ranks - 1) / ranks,
    "reduce-scatter": lambda ranks: (ranks - 1) / ranks,
    "all-gather": lambda ranks: (ranks - 1) / ranks,
    "all-to-all": lambda ranks: (ranks - 1) / ranks,
    "broadcast": lambda ranks: (ranks - 1) / ranks,
    "reduce": lambda ranks: (ranks - 1) / ranks,
    "shift": lambda ranks: 1.0,
}
"""Payloads that a rank sends, in the mean over the ranks of a group and by an algorithm that sends no more than it must."""


def sent(schedule: Schedule, wanted: Callable[[Operation], bool] = lambda operation: True) -> float:
    """Bytes that a rank sends in a step in the exchanges that are wanted, in the mean."""
    total = 0.0
    for operation in schedule.operations:
        work = operation.work
        if isinstance(work, Exchange) and wanted(operation):
            total += SENT[work.operation](schedule.mesh.size(*work.axes)) * float(np.mean(work.nbytes))
    return total


def fixed_bytes(setting: Setting) -> float:
    """Bytes of weights, gradients and state of a rank, in the mean over stages, before activations."""
    formats = setting.plan.precisions.at(0)
    total = 0.0
    for each in held(setting):
        kept = formats[each.part]
        weight, gradient, state = BYTES[kept.weight], BYTES[kept.gradient], kept.state_bytes
        level, width = setting.plan.shards, shards(setting, each)
        each_bytes = sum(
            size / (width if level >= sharded else 1) for size, sharded in ((weight, 3), (gradient, 2), (state, 1))
        )
        total += float(np.mean(each.parameters)) * each_bytes
    return total


def training_flops(model: Model, sequences: int, again: bool) -> float:
    """FLOPs of a step as Narayanan et al. 2021 count them: 96 B s l h² (1 + s/6h + V/16lh), 72 and 12 without recomputation."""
    s, h, layers = model.seq_len, model.hidden, model.layers
    times, share = (96, 16) if again else (72, 12)
    return times * sequences * s * layers * h**2 * (1 + s / (6 * h) + model.vocabulary / (share * layers * h))
