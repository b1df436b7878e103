"""ZeRO++: stage 3 with 8-bit weights, a second shard inside the node, and 4-bit gradients (Wang et al. 2023).

Across nodes 3 M become 0.75 M: 8-bit weights forward (half the volume), the secondary shard along fsdp alone backward (nothing
across nodes), and 4-bit gradients by two all-to-alls (a quarter).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from ...hardware.precisions import BYTES
from ..mesh.mesh import Mesh
from .sharding import ShardTransfer, Vector
from .zero import ShardedWeights

WEIGHT = 1.0
"""Bytes of a quantised weight (qwZ); scales of its blocks are not counted."""

GRADIENT = 0.5
"""Bytes of a quantised gradient (qgZ); scales of its blocks are not counted."""


class ZeroPlusPlus(ShardedWeights):
    """Shards over all replicas, and keeps one more copy of the weights along fsdp (hpZ)."""

    about: ClassVar[str] = "ZeRO-3 with 8-bit weights, 4-bit gradients and a second shard along fsdp (ZeRO++)"
    keeps_second_shard: ClassVar[bool] = True
    quantises: ClassVar[bool] = True
    searched: ClassVar[bool] = False

    def axes(self, replicas: Sequence[str]) -> tuple[str, ...]:
        """All of them."""
        return tuple(replicas)

    def reduction(self, vector: Vector, mesh: Mesh) -> Iterator[ShardTransfer]:
        """4-bit gradients by an all-to-all inside, then one across; each rank adds up what it gets."""
        nbytes = vector.nbytes / BYTES[vector.element] * GRADIENT
        inner = self.second_shard(vector.replicas)
        outer = tuple(axis for axis in vector.replicas if axis not in inner)
        width = mesh.size(*inner)
        if width > 1:
            yield ShardTransfer("all-to-all.inner", "all-to-all", inner, nbytes, "int4", "linear", GRADIENT)
        if mesh.size(*outer) > 1:
            yield ShardTransfer("all-to-all.outer", "all-to-all", outer, nbytes / width, "int4", "linear", GRADIENT)

    def gathering(self, vector: Vector, again: bool) -> ShardTransfer:
        """Forward 8-bit weights over all replicas, backward those of the second shard as they are."""
        if again:
            inner = self.second_shard(vector.replicas)
            return ShardTransfer("all-gather", "all-gather", inner, vector.nbytes, vector.element, "ring")
        nbytes = vector.nbytes / BYTES[vector.element] * WEIGHT
        return ShardTransfer("all-gather", "all-gather", vector.replicas, nbytes, "int8", "ring", WEIGHT)
