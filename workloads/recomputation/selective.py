"""Selective recomputation: the core of attention."""

from __future__ import annotations

from typing import ClassVar

from .recomputation import Recomputation, RepeatedLayer, SavedRow


class Selective(Recomputation):
    """Scores and what follows from them are dropped: large, and cheap to work out again.

    Source: Korthikanti et al. 2022, section 5.
    """

    about: ClassVar[str] = "scores and softmax of attention are worked out again"

    def kept(self, row: SavedRow) -> float:
        """All but the core of attention."""
        return 0.0 if row.core and not row.entry else 1.0

    def run_again(self, layer: RepeatedLayer) -> None:
        """The core of attention."""
        layer.attention_core()
