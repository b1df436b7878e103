"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..model.precision import Formats
from . import hyperparameters as usual
from .optimizer import Optimizer, StateSlot, TensorShare, Update, single


@dataclass(frozen=True)
class Sgd(Optimizer):
    """m = momentum m + g, w -= rate m.

    Source: Polyak 1964; Sutskever et al. 2013, section 2, with the rate outside the momentum (as PyTorch has it).
    """

    learning_rate: float = usual.LEARNING_RATE
    momentum: float = usual.MOMENTUM

    name: ClassVar[str] = "sgd"
    about: ClassVar[str] = "gradient descent with momentum"
    source: ClassVar[str] = "Sutskever et al. 2013, section 2"
    flops: ClassVar[float] = 4
    """A product and a sum for the momentum, and for the step."""

    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """The momentum."""
        return (single("momentum", formats),)

    def update(self, share: TensorShare) -> Update:
        """Element by element."""
        momentum = share.state["momentum"]
        momentum[...] = self.momentum * momentum + share.gradient
        share.exact[...] = share.exact - self.learning_rate * momentum
        yield from ()
