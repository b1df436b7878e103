"""What a kind of sharding among data-parallel ranks is: what is shared out, over which axes, and what is sent for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...hardware.precisions import Precision
from ...hardware.registry import Policy
from ..mesh.axes import SHARDED
from ..mesh.mesh import Mesh
from ..schedule.work import Amount


@dataclass(frozen=True)
class Vector:
    """Parameters of one format that have the same replicas: what is reduced or gathered as one.

    ``nbytes`` of a rank's gradients or weights, in ``element``; they are replicated over ``replicas``, of which ``shards`` are
    those that they are sharded over.
    """

    nbytes: Amount
    element: Precision
    replicas: tuple[str, ...]
    shards: tuple[str, ...]


@dataclass(frozen=True)
class ShardTransfer:
    """An exchange of a vector: ``nbytes`` over ``axes``, in ``element``; ``label`` tells it from others of the vector.

    ``algorithm`` is None where rings, or two levels of them, are chosen by the groups. ``quantised`` is the bytes of an element
    that travels shorter than it is kept, and has to be made whole again; 0 where it is sent as it is.
    """

    label: str
    operation: str
    axes: tuple[str, ...]
    nbytes: Amount
    element: str
    algorithm: str | None = None
    quantised: float = 0.0


class Sharding(Policy):
    """Which parts of a model's state data-parallel ranks share out instead of replicating them.

    Each kind says so by three properties that build on each other, and by the exchanges that follow from them.
    """

    shards_state: ClassVar[bool] = False
    """A rank keeps the optimizer's state of its shard alone, and updates no more than that."""

    shards_gradients: ClassVar[bool] = False
    """Gradients are reduced to shards behind each layer's backward pass, in every micro-batch."""

    shards_weights: ClassVar[bool] = False
    """Weights are never whole but for the layer at hand, before which they are gathered, forward and backward."""

    reshards: ClassVar[bool] = True
    """Whole weights are let go behind a forward pass, and gathered again before the backward one."""

    reduces_in_two_levels: ClassVar[bool] = False
    """Exchanges over all ranks go inside supernodes first, wherever the machine has them."""

    keeps_second_shard: ClassVar[bool] = False
    """Weights have a second shard, along ``fsdp``."""

    quantises: ClassVar[bool] = False
    """Weights or gradients are sent in fewer bits than they are kept in."""

    @property
    def gathers_updates(self) -> bool:
        """Whether updated weights of all shards come together after the update, since each rank keeps whole ones."""
        return self.shards_state and not self.shards_weights

    def axes(self, replicas: Sequence[str]) -> tuple[str, ...]:
        """Over which of the axes of replicas it shards: along ``fsdp`` where the mesh has it, over all of them elsewhere."""
        return tuple(axis for axis in replicas if axis in SHARDED) or tuple(replicas)

    def second_shard(self, replicas: Sequence[str]) -> tuple[str, ...]:
        """The axes of the second shard of weights, where there is one."""
        return tuple(axis for axis in replicas if axis in SHARDED)

    def reduction(self, vector: Vector, mesh: Mesh) -> Iterator[ShardTransfer]:
        """What brings a vector of gradients to where it is applied.

        An all-reduce, or a reduce-scatter to shards; where these do not span all replicas, what is left of a gradient is
        all-reduced over the others (PyTorch's HSDP; MiCS, Zhang et al. 2022).
        """
        if not self.shards_state:
            yield ShardTransfer("all-reduce", "all-reduce", vector.replicas, vector.nbytes, vector.element)
            return
        width = mesh.size(*vector.shards)
        if width > 1:
            yield ShardTransfer("reduce-scatter", "reduce-scatter", vector.shards, vector.nbytes, vector.element)
        rest = tuple(axis for axis in vector.replicas if axis not in vector.shards)
        if mesh.size(*rest) > 1:
            yield ShardTransfer("all-reduce", "all-reduce", rest, vector.nbytes / width, vector.element)

    def gathering(self, vector: Vector, again: bool) -> ShardTransfer:
        """What brings a layer's weights together before a pass; ``again`` is the backward one."""
        return ShardTransfer("all-gather", "all-gather", vector.shards, vector.nbytes, vector.element, "ring")
