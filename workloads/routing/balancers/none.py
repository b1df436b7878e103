"""No balancing: every expert carries whatever is sent to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .balancer import Balancer, Carried, Tokens
from .past import BEGINNING, Past


@dataclass(frozen=True)
class Unbalanced(Balancer):
    """Tokens go where the router wants them; the most popular expert decides the time of all."""

    about: ClassVar[str] = "tokens go where the router wants them"
    decides: ClassVar[bool] = False
    by_choice: ClassVar[bool] = False

    def carry(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Carried:
        """All that is wanted."""
        nothing = np.zeros(wanted.shape[1], dtype=np.int64)
        return Carried(wanted.sum(axis=0), moved=nothing, dropped=nothing)

    def pairs(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Tokens:
        """All that is wanted."""
        every: Tokens = wanted.sum(axis=0)
        return every
