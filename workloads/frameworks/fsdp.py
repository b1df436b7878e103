"""PyTorch's fully sharded data parallelism."""

from __future__ import annotations

from typing import ClassVar

from .framework import TrainingFramework


class FullyShardedDataParallel(TrainingFramework):
    """Shards are in single precision, and are cast before they are gathered: 4 + 4 + 8 bytes a parameter with Adam.

    Source: PyTorch, ``fully_shard`` with a ``MixedPrecisionPolicy`` (Zhao et al. 2023; TorchTitan, Liang et al. 2024).
    """

    about: ClassVar[str] = "PyTorch's FSDP: shards in single precision, 16 bytes a parameter with Adam"
    single_shards: ClassVar[bool] = True
    copies_loss: ClassVar[bool] = True
    workspace: ClassVar[float] = 32 * 2.0**20
    """cuBLAS for PyTorch, on Hopper and later."""
