"""What a training framework is: what it holds beside the tensors of formulas, how it keeps these, and what it passes over."""

from __future__ import annotations

from math import inf
from typing import ClassVar, NamedTuple

from ...hardware.precisions import BYTES
from ...hardware.registry import Policy
from ..model.precision import Formats


class ElementBytes(NamedTuple):
    """Bytes of an element that kernels read and write in accelerator memory."""

    read: float
    written: float

    def __add__(self, other: object) -> ElementBytes:
        """One after the other."""
        assert isinstance(other, ElementBytes)
        return ElementBytes(self.read + other.read, self.written + other.written)


NORM = ElementBytes(4, 0)
"""The sum of squares of single-precision gradients (``multi_tensor_l2norm``)."""

SCALED = ElementBytes(4, 4)
"""A factor on single-precision gradients in place: that of clipping, or of the loss's scale (``multi_tensor_scale``)."""


def widened(formats: Formats) -> ElementBytes:
    """Gradients that are kept shorter than single precision become it, once, and the optimizer reads these instead."""
    short = BYTES[formats.gradient]
    return ElementBytes(short + 4 - short, 4) if short < 4 else ElementBytes(0, 0)


def written_back(formats: Formats) -> ElementBytes:
    """Master weights are read again to become those of products, which the optimizer's own pass counts as written."""
    return (
        ElementBytes(BYTES[formats.master], 0)
        if formats.master and formats.master != formats.weight
        else ElementBytes(0, 0)
    )


def unscaled(formats: Formats) -> ElementBytes:
    """Half-precision gradients are those of a scaled loss: divided by the scale, and looked at for what is no number."""
    return SCALED if formats.compute == "fp16" else ElementBytes(0, 0)


class TrainingFramework(Policy):
    """How a framework keeps a model's state, what it has in work and what it passes over; each kind says so below."""

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

    loss: ClassVar[ElementBytes] = ElementBytes(0, 0)
    """For each logit of a loss that is not fused, forward, beside one pass that reads and writes it."""

    loss_backward: ClassVar[ElementBytes] = ElementBytes(0, 0)
    """The same for its gradient."""

    def around_update(self, formats: Formats) -> ElementBytes:
        """For each parameter that a rank updates, beside the optimizer's own pass."""
        return ElementBytes(0, 0)

    def clears(self, formats: Formats) -> ElementBytes:
        """For each parameter whose gradients a rank adds up: these are made zero for the next step."""
        return ElementBytes(0, 0)

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
