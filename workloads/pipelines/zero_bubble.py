"""ZB-H1 and ZB-H2 (Qi et al. 2023, section 2): gradients of weights fill the bubble."""

from __future__ import annotations

from typing import ClassVar

from .order import Order, Slot, alternate, backwards, forwards
from .pipeline import Pipeline
from .stage_seconds import StageSeconds

EVEN = 0.05
"""By how much parts may differ from their mean for the closed form."""

ENOUGH = 3
"""Micro-batches a stage from which on the closed form holds."""


class ZeroBubble(Pipeline):
    """1F1B whose backward is split, with W put off by ``depth`` · s backward passes on stage s.

    ``depth`` (p - 1) + 1 micro-batches are then held on every stage until their W, and B reaches the first stages sooner.
    """

    depth: ClassVar[int]
    short: ClassVar[float]
    """The share of a stage's passes that a message may take for the closed form."""
    splits_backward = True

    def synchronous_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """All micro-batches at the steady state's pace, and what the stages before the last begin apart.

        With equal stages and free messages these are the bubbles (p - 1)(f + b - w) of ZB-H1 and (p - 1)(f + b - 2w) of ZB-H2,
        but no less than the (p - 1) f by which stages end apart. It holds where parts are nearly even, messages short, and
        micro-batches enough to keep all stages busy.
        """
        if stages.uneven > EVEN or stages.send > self.short * stages.slowest or micro_batches < ENOUGH * stages.stages:
            return None
        apart = [
            max(
                each.forward + stages.send,
                each.forward
                + each.backward
                - each.backward_after
                - self.depth * each.weights
                + 4 * stages.send / self.depth,
            )
            for each in stages.parts[:-1]
        ]
        return micro_batches * stages.pace(self.depth) + sum(apart)

    def in_flight(self, stages: int, micro_batches: int, chunks: int = 1) -> list[list[int]]:
        """``depth`` (p - 1) + 1 on every stage, as far as there are so many."""
        return [[min(micro_batches, self.depth * (stages - 1) + 1)] for _ in range(stages)]

    def orders(self, stages: int, micro_batches: int, chunks: int = 1) -> list[Order]:
        """Stage s runs ``depth`` (p - s - 1) forward passes ahead; its W follow the B after ``depth`` · s others."""
        ahead, back = forwards(micro_batches), backwards(micro_batches)
        return [
            _filled(alternate(ahead, back, self.depth * (stages - stage - 1)), self.depth * stage)
            for stage in range(stages)
        ]


class ZeroBubbleH1(ZeroBubble):
    """With f, b and w seconds for F, B and W, a bubble of (p - 1)(f + b - w): a third of 1F1B's where they are equal.

    No stage holds more than the p micro-batches that 1F1B's first one does.
    """

    name = "zb-h1"
    about = "1F1B, gradients of weights put off into the bubble; p micro-batches held on each stage"
    depth, short = 1, 0.01


class ZeroBubbleH2(ZeroBubble):
    """A bubble of (p - 1)(f + b - 2w), none where F, B and W are equal, once 2p - 1 micro-batches are there.

    Stages then begin and end f apart: a step that ends with a barrier takes these (p - 1)f longer. 2p - 1 micro-batches are held.
    """

    name = "zb-h2"
    about = "as zb-h1 with twice as much under way: no bubble where F, B and W are equal; 2p - 1 micro-batches held"
    depth, short = 2, 0.05


def _filled(order: Order, delay: int) -> Order:
    """An order with W slots, each ``delay`` backward passes later than its own; those left over come last."""
    filled: Order = []
    for slot in order:
        filled.append(slot)
        if slot.kind == "B" and slot.micro_batch >= delay:
            filled.append(Slot("W", slot.micro_batch - delay))
    count = sum(slot.kind == "B" for slot in order)
    return filled + [Slot("W", number) for number in range(max(0, count - delay), count)]
