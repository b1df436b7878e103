"""Full recomputation of layers."""

from __future__ import annotations

from typing import ClassVar

from .recomputation import Recomputation, RepeatedLayer, SavedRow


class Full(Recomputation):
    """Only a layer's input is kept, and all of its forward pass is run again (Chen et al. 2016)."""

    about: ClassVar[str] = "whole layers are worked out again from their inputs"
    repeats_layers: ClassVar[bool] = True

    def kept(self, row: SavedRow) -> float:
        """The layer's input."""
        return 1.0 if row.entry else 0.0

    def run_again(self, layer: RepeatedLayer) -> None:
        """Everything."""
        layer.whole()
