"""Interleaved 1F1B (Narayanan et al. 2021a, section 2.2; Megatron-LM's virtual pipeline)."""

from __future__ import annotations

from ...hardware.errors import InputError
from .order import Kind, Order, Slot, alternate
from .pipeline import Pipeline
from .stage_seconds import StageSeconds

EVEN = 0.05
"""By how much parts may differ from their mean for the closed form."""

SHORT = 0.2
"""The share of a part's passes that a message may take for the closed form."""


class Interleaved(Pipeline):
    """Each stage holds v chunks of layers, p parts apart: the bubble shrinks to (p - 1)/(v m), transfers grow v-fold."""

    name = "interleaved"
    about = "1F1B over --chunks V chunks a stage; a V-th of the bubble, V times the transfers"

    chunked = True

    def orders(self, stages: int, micro_batches: int, chunks: int = 1) -> list[Order]:
        """Groups of p micro-batches go through chunk after chunk; stage s runs 2(p - s - 1) + (v - 1)p passes ahead."""
        ahead = _passes("F", stages, micro_batches, chunks)
        back = _passes("B", stages, micro_batches, chunks)
        return [
            alternate(ahead, back, min(2 * (stages - stage - 1) + (chunks - 1) * stages, len(ahead)))
            for stage in range(stages)
        ]

    def synchronous_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """A chunk's share of the bubble, and the messages of one micro-batch's way through all chunks of all stages.

        That holds where parts are nearly even (:data:`EVEN`) and messages short enough for the passes of other micro-batches
        to hide them (:data:`SHORT`); with equal parts and free messages it is the (p - 1)(f + b)/v of the source.
        """
        if stages.uneven > EVEN or stages.send > SHORT * stages.slowest / stages.chunks:
            return None
        fill = (sum(stages.way) - max(stages.way)) / stages.chunks
        return micro_batches * stages.slowest + fill + 2 * (len(stages.parts) - 1) * stages.send

    def check_chunks(self, stages: int, chunks: int) -> None:
        """Two at least: with one, the order would be 1F1B's with more under way."""
        if chunks < 2:
            raise InputError(
                f"--chunks {chunks}: --pipeline interleaved needs at least 2 a stage; 1f1b has one",
                "--pipeline interleaved with one chunk",
            )

    def check(self, stages: int, micro_batches: int, chunks: int) -> None:
        """Also for micro-batches that are no multiple of the stages."""
        super().check(stages, micro_batches, chunks)
        if micro_batches % stages:
            raise InputError(
                f"--pipeline interleaved: {micro_batches} micro-batches are no multiple of pp={stages} stages",
                "--pipeline interleaved: micro-batches are no multiple of the stages",
            )


def _passes(kind: Kind, stages: int, micro_batches: int, chunks: int) -> Order:
    """All passes of one direction: p micro-batches through a chunk, then through the next; backward, the last chunk first."""
    through = range(chunks) if kind == "F" else range(chunks - 1, -1, -1)
    return [
        Slot(kind, number, chunk)
        for first in range(0, micro_batches, stages)
        for chunk in through
        for number in range(first, first + stages)
    ]
