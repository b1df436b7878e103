"""Adam: both moments of every gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..model.precision import Formats
from . import hyperparameters as usual
from .optimizer import Array, Optimizer, StateSlot, TensorShare, Update, single


@dataclass(frozen=True)
class Adam(Optimizer):
    """w -= rate m / (sqrt(v) + epsilon), m and v decaying means of gradients and of their squares, without their bias.

    Source: Kingma and Ba 2015, section 2, in the order of operations that the end of that section gives.
    """

    learning_rate: float = usual.LEARNING_RATE
    beta1: float = usual.BETA_1
    beta2: float = usual.BETA_2

    name: ClassVar[str] = "adam"
    about: ClassVar[str] = "two moments of every gradient"
    source: ClassVar[str] = "Kingma and Ba 2015, Algorithm 1 and the end of section 2"
    flops: ClassVar[float] = 12
    """Of moments 3 and 4, root, sum, quotient, and the step's product and difference; it is bound by memory."""

    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """Both moments."""
        return single("first", formats), single("second", formats)

    def update(self, share: TensorShare) -> Update:
        """Element by element."""
        moments = share.state
        moments["first"][...] = self.beta1 * moments["first"] + (1 - self.beta1) * share.gradient
        second = self.beta2 * moments["second"] + (1 - self.beta2) * share.gradient * share.gradient
        moments["second"][...] = second
        self.apply(share, moments["first"], moments["second"])
        yield from ()

    def apply(self, share: TensorShare, first: Array, second: Array) -> None:
        """The step that these moments ask for."""
        rate = self.learning_rate * np.sqrt(1 - self.beta2**share.step) / (1 - self.beta1**share.step)
        epsilon = usual.EPSILON_OF_HALVES if second.dtype == np.float16 else usual.EPSILON
        root = np.sqrt(second.astype(share.gradient.dtype))
        share.exact[...] = share.exact - rate * first / (root + epsilon)
