"""Recomputation of every second product."""

from __future__ import annotations

from typing import ClassVar

from .recomputation import Recomputation, RepeatedLayer, SavedRow


class EverySecondProduct(Recomputation):
    """Outputs of every second product with weights and of attention are kept; what lies between, and the others, is run again.

    As selective activation checkpointing per operator in PyTorch does, which TorchTitan uses.
    """

    about: ClassVar[str] = "every second product with weights is worked out again, and what lies between"
    keeps_products: ClassVar[bool] = True
    searched: ClassVar[bool] = False

    def kept(self, row: SavedRow) -> float:
        """Of all but the layer's input, what products bring."""
        return 1.0 if row.entry else row.product

    def run_again(self, layer: RepeatedLayer) -> None:
        """What is between the products that are kept, and every second one."""
        layer.between_products()
