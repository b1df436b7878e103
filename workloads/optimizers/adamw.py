"""AdamW: Adam, and weights that decay by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import hyperparameters as usual
from .adam import Adam
from .optimizer import Array, TensorShare


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam's step, after weights have shrunk by rate times decay: the decay does not pass through the moments.

    Source: Loshchilov and Hutter 2019, Algorithm 2, with the schedule's multiplier in the rate (as PyTorch has it).
    """

    weight_decay: float = usual.WEIGHT_DECAY

    name: ClassVar[str] = "adamw"
    about: ClassVar[str] = "Adam with weight decay of its own"
    source: ClassVar[str] = "Loshchilov and Hutter 2019, Algorithm 2"
    flops: ClassVar[float] = 14
    """Adam's, and the decay's product and difference."""

    def apply(self, share: TensorShare, first: Array, second: Array) -> None:
        """Decay, then Adam's step."""
        share.exact[...] = share.exact * (1 - self.learning_rate * self.weight_decay)
        super().apply(share, first, second)
