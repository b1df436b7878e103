"""Sharding among data-parallel ranks: one file a family, and one line here for each kind."""

from __future__ import annotations

from ...hardware.registry import Registry
from .hierarchical import Hierarchical
from .replicated import Replicated
from .sharding import Sharding, ShardTransfer, Vector
from .zero import ShardedGradients, ShardedState, ShardedWeights, WeightsKeptForBackward
from .zero_plus_plus import ZeroPlusPlus

SHARDINGS: Registry[Sharding] = Registry(
    "sharding",
    {
        "0": Replicated(),
        "1": ShardedState(),
        "2": ShardedGradients(),
        "3": ShardedWeights(),
        "shard-grad-op": WeightsKeptForBackward(),
        "++": ZeroPlusPlus(),
        "hierarchical": Hierarchical(),
    },
    flag="--zero",
    interface=Sharding,
)
"""Kinds of sharding by the names that ``--zero`` takes."""

__all__ = ["SHARDINGS", "ShardTransfer", "Sharding", "Vector"]
