"""Capacity factor with drop: an overloaded rank refuses tokens, which pass the layer by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...hardware.errors import InputError
from ..schedule import Loop, Work
from .policy import Carried, Tokens


@dataclass(frozen=True)
class Capacity:
    """Each rank's experts take at most ``factor`` times the mean load; the rest is dropped.

    Source: Fedus et al. 2021 (Switch Transformer), section 2.2. The limit is local to the receiver and costs no
    messages.
    """

    factor: float = 1.25
    level: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise InputError(f"--balancer capacity:{self.factor:g}: the capacity factor must be above zero")

    def carry(self, wanted: Tokens, tokens: int) -> Carried:
        """What is wanted up to ``ceil(factor * tokens * top_k)`` tokens a rank."""
        limit = int(np.ceil(self.factor * tokens * len(wanted)))
        every = wanted.sum(axis=0)
        carried = np.minimum(every, limit)
        return Carried(carried, moved=np.zeros(len(every), dtype=np.int64), dropped=(every - carried).sum(axis=-1))

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[tuple[str, Work]]:
        """Ranks count the tokens that they keep."""
        yield "capacity.count", Loop(float(tokens * top_k))
