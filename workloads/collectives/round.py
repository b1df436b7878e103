"""The round: equal steps of a collective in a row, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .blocks import Blocks, Numbering
from .patterns import All, Index, Pattern

Scope = Literal["group", "inner", "outer"]
Action = Literal["exchange", "reduce", "combine", "gather"]


@dataclass(frozen=True)
class Round:
    """``steps`` steps in a row, within every group of ``scope``: the whole group, a supernode's part of it, or across.

    At each step ranks send to their target under ``pattern`` the blocks that ``content`` names, ``share`` of the payload in
    one message (:class:`All`: in all messages together, the own part included). A payload is a rank's whole vector; for an
    all-to-all, what it sends in all, its own part included. All ranks send what they held before the step.

    ``action`` says what becomes of blocks: ``exchange`` moves them; ``reduce`` adds them to the receiver's, and the sender's
    are spent; ``combine`` adds them, and the sender keeps its own; ``gather`` stores a copy.

    Two-level algorithms name blocks by one coordinate of their owner, its position in the scope: a message carries all
    blocks with that coordinate that the sender still holds (``outer``: those of its own inner number).
    """

    scope: Scope
    pattern: Pattern
    action: Action
    share: float
    content: Blocks
    steps: int = 1

    @property
    def everyone(self) -> bool:
        """Whether every rank sends to every other of the scope at once."""
        return isinstance(self.pattern, All)

    @property
    def numbering(self) -> Numbering:
        """What numbers of blocks mean: the ``part`` of a payload, or the ``offset`` from origin to destination."""
        return self.content.numbering

    def parts(self, size: int) -> int:
        """Into how many equal blocks :meth:`blocks` cuts the payload of a scope."""
        return self.content.parts(size)

    def blocks(self, position: int, partner: int, step: int, size: int) -> Index:
        """Numbers of the blocks that ``position`` sends to ``partner`` at a step."""
        return self.content.of(position, partner, step, size)

    def partners(self, position: int, step: int, size: int) -> list[int]:
        """Positions that the rank at ``position`` sends to at a step."""
        if self.everyone:
            return [other for other in range(size) if other != position]
        target = int(self.pattern.targets(np.asarray(position), size, step))
        return [target] if target >= 0 else []

    def messages(self, size: int) -> int:
        """Messages that a rank sends at each step, at most."""
        return size - 1 if self.everyone else min(1, size - 1)

    def distinct(self) -> Iterator[tuple[int, int]]:
        """(step, how often in a row) of every step that differs from the one before it."""
        if self.pattern.repeats:
            yield 0, self.steps
        else:
            yield from ((step, 1) for step in range(self.steps))
