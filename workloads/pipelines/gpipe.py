"""GPipe (Huang et al. 2019): all forward passes, then all backward ones."""

from __future__ import annotations

from .order import Order, backwards, forwards
from .pipeline import Pipeline
from .stage_seconds import StageSeconds


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

    def synchronous_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """Exact: one micro-batch there and back, and for each other one the slowest pass of either direction.

        For equal stages and free messages that is the bubble (p - 1)(f + b) of the source.
        """
        slowest = max(stages.forward) + max(stages.backward)
        return stages.round_trip + stages.parts[0].backward_after + (micro_batches - 1) * slowest

    def in_flight(self, stages: int, micro_batches: int, chunks: int = 1) -> list[list[int]]:
        """All of a step."""
        return [[micro_batches] for _ in range(stages)]
