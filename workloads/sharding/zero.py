"""ZeRO's three stages (Rajbhandari et al. 2020).

The first two have the volume of an all-reduce, 2 (n - 1)/n of the vector; the third gathers weights twice a micro-batch.
"""

from __future__ import annotations

from typing import ClassVar

from .sharding import Sharding


class ShardedState(Sharding):
    """Stage 1: reduce-scatter, update of a shard, all-gather of weights."""

    about: ClassVar[str] = "optimizer state is sharded (ZeRO-1)"
    shards_state: ClassVar[bool] = True


class ShardedGradients(ShardedState):
    """Stage 2: gradients are reduced after every micro-batch, since no rank keeps all of them."""

    about: ClassVar[str] = "gradients are sharded too (ZeRO-2)"
    shards_gradients: ClassVar[bool] = True


class ShardedWeights(ShardedGradients):
    """Stage 3: weights are never whole, and there is nothing to gather after the update."""

    about: ClassVar[str] = "weights are sharded too (ZeRO-3, FSDP)"
    shards_weights: ClassVar[bool] = True


class WeightsKeptForBackward(ShardedWeights):
    """As stage 3, but weights that have been gathered for a forward pass stay whole until the backward one.

    Source: PyTorch's FSDP with ``reshard_after_forward=False``, before that ``SHARD_GRAD_OP`` (Zhao et al. 2023).
    """

    about: ClassVar[str] = "as 3, but weights stay whole from forward to backward pass (FSDP without resharding)"
    reshards: ClassVar[bool] = False
    searched: ClassVar[bool] = False
