"""What a training framework is to memory: what it holds beside the tensors of formulas, and how it keeps these."""

from __future__ import annotations

from math import inf
from typing import ClassVar

from ...hardware.registry import Policy


class TrainingFramework(Policy):
    """How a framework keeps a model's state, and what it has in work; each kind says so by the properties below."""

    searched: ClassVar[bool] = False

    bucket: ClassVar[float] = 0.0
    """Gradients that are gathered up in a buffer of their own before they are reduced, at most."""

    at_once: ClassVar[float] = inf
    """Parameters that are whole at once where weights are sharded, at most, or those of a single tensor; else two layers."""

    single_shards: ClassVar[bool] = False
    """Sharded weights are kept in the format of their update alone: there is no shard in that of the products."""

    keeps_outputs: ClassVar[bool] = False
    """Stages of a pipeline keep what they sent on until its gradient comes."""

    workspace: ClassVar[float] = 0.0
    """Bytes that libraries of products keep in the framework's pool."""

    copies_loss: ClassVar[bool] = False
    """The loss makes logarithms beside single-precision logits; cut over tp also logits without their maximum."""

    @property
    def weighs_inside(self) -> bool:
        """Whether outputs of experts are weighted by their gate behind the activation already, so that they need not be kept."""
        return False

    @property
    def keeps_empty_gradients(self) -> bool:
        """Whether a gradient of each shape of weights stays, which says that the true one has been added to its sum."""
        return False

    @property
    def keeps_empty_expert_gradients(self) -> bool:
        """The same for weights of experts."""
        return False
