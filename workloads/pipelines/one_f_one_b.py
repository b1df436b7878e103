"""1F1B with a flush (PipeDream-Flush, Narayanan et al. 2021b; Megatron-LM's default)."""

from __future__ import annotations

from .order import Order, alternate, backwards, forwards
from .pipeline import Pipeline


class OneForwardOneBackward(Pipeline):
    """GPipe's bubble, (p - 1)/m, with no more than p - s micro-batches under way on stage s."""

    name = "1f1b"
    about = "one forward, one backward in turn; at most p - s micro-batches under way on stage s"

    def orders(self, stages: int, micro_batches: int, chunks: int = 1) -> list[Order]:
        """Stage s runs p - s - 1 forward passes ahead."""
        ahead, back = forwards(micro_batches), backwards(micro_batches)
        return [alternate(ahead, back, stages - stage - 1) for stage in range(stages)]
