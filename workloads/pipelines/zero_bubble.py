"""ZB-H1 and ZB-H2 (Qi et al. 2023, section 2): gradients of weights fill the bubble."""

from __future__ import annotations

from typing import ClassVar

from .order import Order, Slot, alternate, backwards, forwards
from .pipeline import Pipeline


class ZeroBubble(Pipeline):
    """1F1B whose backward is split, with W put off by ``depth`` · s backward passes on stage s.

    ``depth`` (p - 1) + 1 micro-batches are then held on every stage until their W, and B reaches the first stages sooner.
    """

    depth: ClassVar[int]
    splits_backward = True

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
    depth = 1


class ZeroBubbleH2(ZeroBubble):
    """A bubble of (p - 1)(f + b - 2w), none where F, B and W are equal, once 2p - 1 micro-batches are there.

    Stages then begin and end f apart: a step that ends with a barrier takes these (p - 1)f longer. 2p - 1 micro-batches are held.
    """

    name = "zb-h2"
    about = "as zb-h1 with twice as much under way: no bubble where F, B and W are equal; 2p - 1 micro-batches held"
    depth = 2


def _filled(order: Order, delay: int) -> Order:
    """An order with W slots, each ``delay`` backward passes later than its own; those left over come last."""
    filled: Order = []
    for slot in order:
        filled.append(slot)
        if slot.kind == "B" and slot.micro_batch >= delay:
            filled.append(Slot("W", slot.micro_batch - delay))
    count = sum(slot.kind == "B" for slot in order)
    return filled + [Slot("W", number) for number in range(max(0, count - delay), count)]
