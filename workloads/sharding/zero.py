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
