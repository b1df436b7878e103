"""What may act around the layers of a pass: weights that have to be fetched first, gradients that leave at once."""

from __future__ import annotations

from ..builder import Program


class LayerHook:
    """A strategy that acts around layers; each does what it needs of these, and nothing else."""

    def begin(self, program: Program, again: bool) -> None:
        """Before a forward pass, or (``again``) a backward pass, through embedding, layers and output."""

    def before(self, program: Program, layer: int, again: bool) -> None:
        """Before the forward pass of a layer, or (``again``) before its backward pass."""

    def after_forward(self, program: Program, layer: int) -> None:
        """After its forward pass."""

    def after_backward(self, program: Program, layer: int) -> None:
        """After its backward pass."""
