"""Quantities that several reproductions compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ....hardware.machine import Machine
from ....workloads.collectives import rounds
from ....workloads.memory import Memory, account, memory, sample_loads
from ....workloads.model.model import Model
from ....workloads.plan.setting import Setting
from ....workloads.schedule.operation import Operation
from ....workloads.schedule.schedule import Schedule
from ....workloads.schedule.work import Exchange


def need(machine: str | Path | Machine, model: str | Path | Model, **options: Any) -> Memory:
    """Memory of the fullest rank of a plan, whether it fits or not."""
    setting = Setting.of(machine, model, options)
    return memory(setting, sample_loads(setting))


def fits(machine: str | Path | Machine, model: str | Path | Model, **options: Any) -> bool:
    """Whether a plan fits."""
    return bool(need(machine, model, **options).fits)


def zero_volume(ranks: int) -> float:
    """Bytes that a rank sends in a reduce-scatter and an all-gather, over those of an all-reduce."""

    def volume(operation: str) -> float:
        return sum(each.share * each.steps for each in rounds(operation, "ring", 1, ranks))

    return (volume("reduce-scatter") + volume("all-gather")) / volume("all-reduce")


SENT: dict[str, Callable[[int], float]] = {
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
    """Bytes of weights, gradients and state of a rank, in the mean over stages: what is there whatever the batch."""
    stages = account(setting, sample_loads(setting)).by_stage
    return float(np.mean([each.parameters + each.gradients + each.optimizer for each in stages]))


def training_flops(model: Model, sequences: int, again: bool) -> float:
    """FLOPs of a step as Narayanan et al. 2021 count them: 96 B s l h² (1 + s/6h + V/16lh), 72 and 12 without recomputation."""
    s, h, layers = model.seq_len, model.hidden, model.layers
    times, share = (96, 16) if again else (72, 12)
    return times * sequences * s * layers * h**2 * (1 + s / (6 * h) + model.vocabulary / (share * layers * h))
