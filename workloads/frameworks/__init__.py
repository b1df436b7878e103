"""Training frameworks: one file each, and one line here."""

from __future__ import annotations

from ...hardware.registry import Registry
from .deepspeed import DeepSpeed
from .framework import ElementBytes, TrainingFramework
from .fsdp import FullyShardedDataParallel
from .megatron import Megatron

FRAMEWORKS: Registry[TrainingFramework] = Registry(
    "framework",
    {
        "megatron": Megatron,
        "deepspeed": DeepSpeed(),
        "fsdp": FullyShardedDataParallel(),
    },
    flag="--framework",
    interface=TrainingFramework,
)
"""Frameworks by the names that ``--framework`` takes."""

__all__ = ["FRAMEWORKS", "DeepSpeed", "ElementBytes", "FullyShardedDataParallel", "Megatron", "TrainingFramework"]
