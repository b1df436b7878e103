"""Quantities that several reproductions compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...hardware.machine import Machine
from ...workloads.collectives import rounds
from ...workloads.lowering import lower_step
from ...workloads.memory import Memory, memory
from ...workloads.model import Model
from ...workloads.setting import Setting


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
