"""What a rank saw of its tokens in a layer: the record that training makes and observation adds up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .moe_layer import MoeLayer


@dataclass(frozen=True)
class Tokens:
    """What a rank saw of one layer and micro-batch: tokens of its own by rank wanted, and what became of them.

    ``experts`` counts its tokens, of all choices, by the expert that they want.
    """

    micro_batch: int
    layer: int
    wanted: NDArray[np.int64]  # [top_k, ranks]
    experts: NDArray[np.int64]  # [experts]
    carried: int
    moved: int
    dropped: int

    @classmethod
    def of(cls, layer: MoeLayer, micro_batch: int, number: int) -> Tokens:
        """That of a layer's tokens."""
        routing = layer.routing
        experts = np.bincount(routing.wanted.reshape(-1), minlength=routing.ranks * routing.local)
        return cls(micro_batch, number, routing.by_choice(), experts, layer.carried, routing.moved, routing.dropped)
