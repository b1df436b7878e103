"""Megatron-LM with Transformer Engine, whose release decides what stays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ...hardware.precisions import BYTES
from ..model.precision import Formats
from .framework import NORM, SCALED, ElementBytes, TrainingFramework, unscaled, widened, written_back

Release = tuple[int, int]

NEWEST: Release = (2, 11)
"""The release that is taken where none is named."""

EMPTY_GRADIENTS: Release = (2, 3)
"""From here on an empty gradient of each shape is kept for good (``get_dummy_wgrad``), not made and thrown away."""

EMPTY_EXPERT_GRADIENTS: Release = (2, 10)
"""The same of grouped products."""


@dataclass(frozen=True)
class Megatron(TrainingFramework):
    """The distributed optimizer's contiguous buffers of weights and gradients are the parameters themselves, and no more.

    Products add their gradients to the buffer; what autograd gets instead is an empty tensor of the weight's shape in the format
    of activations. Outputs of stages are let go when they are sent (``deallocate_pipeline_outputs``).
    """

    about: ClassVar[str] = "Megatron-LM; megatron:RELEASE of Transformer Engine, such as megatron:1.7 (2.11 by default)"
    workspace: ClassVar[float] = 2 * 32 * 2.0**20
    """One of cuBLAS for PyTorch and one for Transformer Engine, 32 MiB each on Hopper and later."""

    loss: ClassVar[ElementBytes] = ElementBytes(2 + 4 + 4 + 4 + 4 + 4 - 2, 4 + 4 + 4 + 4 - 2)
    """``vocab_parallel_cross_entropy``: cast, maximum, less the maximum, exponential, sum, quotient (memory-sure)."""

    loss_backward: ClassVar[ElementBytes] = ElementBytes(4 + 4, 4 + 2)
    """The softmax times the gradient, in place, and the cast's way back."""

    release: Release = NEWEST

    @classmethod
    def parse(cls, argument: str) -> Self:
        """With the release of Transformer Engine behind the colon."""
        if not argument:
            return cls()
        major, _, minor = argument.partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            raise ValueError("takes a release of Transformer Engine, as in megatron:2.11")
        return cls((int(major), int(minor)))

    def around_update(self, formats: Formats) -> ElementBytes:
        """``MixedPrecisionOptimizer.step``: copies, scale, norm and clipping before Adam, weights behind it (memory-sure)."""
        return widened(formats) + unscaled(formats) + NORM + SCALED + written_back(formats)

    def clears(self, formats: Formats) -> ElementBytes:
        """``zero_grad_buffer``."""
        return ElementBytes(0, BYTES[formats.gradient])

    @property
    def weighs_inside(self) -> bool:
        """From Megatron Core 0.12 on, which came out with release 2.3."""
        return self.release >= EMPTY_GRADIENTS

    @property
    def keeps_empty_gradients(self) -> bool:
        """From release 2.3 on."""
        return self.release >= EMPTY_GRADIENTS

    @property
    def keeps_empty_expert_gradients(self) -> bool:
        """From release 2.10 on."""
        return self.release >= EMPTY_EXPERT_GRADIENTS
