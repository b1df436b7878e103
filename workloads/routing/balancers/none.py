"""No balancing: every expert carries whatever is sent to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .balancer import BalancingStep, Carried, Tokens


@dataclass(frozen=True)
class Unbalanced:
    """Tokens go where the router wants them; the most popular expert decides the time of all."""

    level: ClassVar[bool] = False

    @classmethod
    def parse(cls, argument: str) -> Unbalanced:
        """There is nothing to set."""
        if argument:
            raise ValueError("takes no argument")
        return cls()

    def carry(self, wanted: Tokens, tokens: int) -> Carried:
        """All that is wanted."""
        nothing = np.zeros(wanted.shape[1], dtype=np.int64)
        return Carried(wanted.sum(axis=0), moved=nothing, dropped=nothing)

    def pairs(self, wanted: Tokens, tokens: int) -> Tokens:
        """All that is wanted."""
        every: Tokens = wanted.sum(axis=0)
        return every

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep]:
        """Nothing."""
        yield from ()
