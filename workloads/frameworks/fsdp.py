"""PyTorch's fully sharded data parallelism."""

from __future__ import annotations

from typing import ClassVar

from ..model.precision import Formats
from .framework import NORM, SCALED, ElementBytes, TrainingFramework


class FullyShardedDataParallel(TrainingFramework):
    """Shards are in single precision, and are cast before they are gathered: 4 + 4 + 8 bytes a parameter with Adam.

    Source: PyTorch, ``fully_shard`` with a ``MixedPrecisionPolicy`` (Zhao et al. 2023; TorchTitan, Liang et al. 2024).
    """

    about: ClassVar[str] = "PyTorch's FSDP: shards in single precision, 16 bytes a parameter with Adam"
    single_shards: ClassVar[bool] = True
    copies_loss: ClassVar[bool] = True
    loss: ClassVar[ElementBytes] = ElementBytes(2 + 8 - 2, 4 + 4 - 2)
    """``cross_entropy`` of logits that become single precision: cast, log-softmax in two readings (memory-sure)."""

    loss_backward: ClassVar[ElementBytes] = ElementBytes(8 + 4, 4 + 2)
    workspace: ClassVar[float] = 32 * 2.0**20
    """cuBLAS for PyTorch, on Hopper and later."""

    def around_update(self, formats: Formats) -> ElementBytes:
        """``clip_grad_norm_``; shards are updated in the format in which they are kept (memory-sure)."""
        return NORM + SCALED
