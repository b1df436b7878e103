"""No recomputation."""

from __future__ import annotations

from typing import ClassVar

from .recomputation import Recomputation, RepeatedLayer, SavedRow


class Nothing(Recomputation):
    """Everything is kept."""

    about: ClassVar[str] = "everything is kept for the backward pass"
    repeats: ClassVar[bool] = False

    def kept(self, row: SavedRow) -> float:
        """All of it."""
        return 1.0

    def run_again(self, layer: RepeatedLayer) -> None:
        """Nothing."""
