"""LAMB: Adam's step, as long as each tensor's weights are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...hardware.precisions import BYTES
from ..model.precision import Formats
from ..model.tensors import Tensor
from . import hyperparameters as usual
from .optimizer import (
    Optimizer,
    StateSlot,
    Step,
    Sum,
    Sums,
    TensorShare,
    Update,
    UpdatePass,
    single,
    weight_bytes,
    written_bytes,
)


@dataclass(frozen=True)
class Lamb(Optimizer):
    """w -= rate (|w| / |u|) u, with u Adam's step and the decay; norms are those of a whole tensor.

    Source: You et al. 2020, Algorithm 2, with the identity for its function of the norm. The step lies where the gradient did
    until norms are known (NVIDIA Apex, ``multi_tensor_lamb.cu``).
    """

    learning_rate: float = usual.LEARNING_RATE
    beta1: float = usual.BETA_1
    beta2: float = usual.BETA_2
    epsilon: float = usual.LAMB_EPSILON
    weight_decay: float = usual.WEIGHT_DECAY

    name: ClassVar[str] = "lamb"
    about: ClassVar[str] = "Adam's step, scaled to the norm of each tensor's weights"
    source: ClassVar[str] = "You et al. 2020, Algorithm 2; NVIDIA Apex, multi_tensor_lamb.cu"
    flops: ClassVar[float] = 20
    hosted: ClassVar[bool] = False

    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """Both moments."""
        return single("first", formats), single("second", formats)

    def steps(self, tensor: Tensor, formats: Formats) -> tuple[Step, ...]:
        """Moments, the step and sums of squares; two sums for each tensor; weights."""
        gradient, moments = BYTES[formats.gradient], 2 * BYTES[formats.moments]
        weight = weight_bytes(formats)
        return (
            UpdatePass(
                "", gradient + moments + weight, moments + gradient, 18
            ),  # Adam's and the decay's 14, two sums of squares
            Sums("norms", 2),
            UpdatePass("apply", gradient + weight, written_bytes(formats), 2),
        )

    def update(self, share: TensorShare) -> Update:
        """The step by elements, its length by tensor."""
        first, second = share.state["first"], share.state["second"]
        first[...] = self.beta1 * first + (1 - self.beta1) * share.gradient
        second[...] = self.beta2 * second + (1 - self.beta2) * share.gradient * share.gradient
        mean = first.astype(share.gradient.dtype) / (1 - self.beta1**share.step)
        root = np.sqrt(second.astype(share.gradient.dtype) / (1 - self.beta2**share.step))
        step = mean / (root + self.epsilon) + self.weight_decay * share.exact
        weights = share.exact.astype(step.dtype)
        sums = yield Sum(np.array([np.vdot(weights, weights), np.vdot(step, step)]))
        length = np.sqrt(sums[0] / sums[1]) if sums[0] > 0 and sums[1] > 0 else 1.0
        share.exact[...] = share.exact - self.learning_rate * length * step
