"""GPipe (Huang et al. 2019): all forward passes, then all backward ones."""

from __future__ import annotations

from .order import Order, backwards, forwards
from .pipeline import Pipeline


class GPipe(Pipeline):
    """Simple, at the price of keeping all micro-batches of a step: the bubble is (p - 1)/m, with m under way.

    Backward passes begin with the first micro-batch, as Narayanan et al. 2021a draw it (figure 3); with the last one first, as
    Huang et al. do, bubble and memory are the same.
    """

    name = "gpipe"
    about = "all forward passes, then all backward ones; m micro-batches under way"

    def orders(self, stages: int, micro_batches: int, chunks: int = 1) -> list[Order]:
        """The same on every stage."""
        return [[*forwards(micro_batches), *backwards(micro_batches)] for _ in range(stages)]
