"""Capacity factor with drop: an overloaded rank refuses tokens, which pass the layer by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ...schedule.operation import Role
from ...schedule.work import Loop
from .balancer import Balancer, BalancingStep, Carried, Tokens
from .past import BEGINNING, Past


@dataclass(frozen=True)
class Capacity(Balancer):
    """Each rank's experts take at most ``factor`` times the mean load; the rest is dropped.

    Source: Fedus et al. 2021 (Switch Transformer), section 2.2. The limit is local to the receiver and costs no
    messages.
    """

    factor: float = 1.25
    about: ClassVar[str] = "capacity:F, at most F times the mean, the rest dropped (F = 1.25)"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """``capacity:1.25``, or ``capacity`` for the usual factor."""
        try:
            factor = float(argument or cls.factor)
        except ValueError:
            factor = 0.0
        if not 0 < factor < float("inf"):
            raise ValueError("takes a capacity factor above zero, such as capacity:1.25")
        return cls(factor)

    def places(self, tokens: int, top_k: int) -> int:
        """Tokens that a rank's experts have room for."""
        return int(np.ceil(self.factor * tokens * top_k))

    def carry(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Carried:
        """What is wanted up to ``ceil(factor * tokens * top_k)`` tokens a rank."""
        limit = self.places(tokens, len(wanted))
        every = wanted.sum(axis=0)
        carried = np.minimum(every, limit)
        return Carried(carried, moved=np.zeros(len(every), dtype=np.int64), dropped=(every - carried).sum(axis=-1))

    def pairs(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Tokens:
        """Choice by choice and sender by sender, as far as there is room."""
        limit = self.places(tokens, len(wanted))
        queue = wanted.reshape(-1, wanted.shape[2])
        kept = np.clip(limit - (np.cumsum(queue, axis=0) - queue), 0, queue)
        every: Tokens = kept.reshape(wanted.shape).sum(axis=0)
        return every

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep]:
        """Ranks count the tokens that they keep."""
        yield BalancingStep("capacity.count", Loop(float(tokens * top_k)), Role.TOKENS_DROPPED)


@dataclass(frozen=True)
class Padded(Capacity):
    """The same, and places that are left empty travel and are computed like those of tokens.

    Every expert's product then has one shape, whatever was chosen (Lepikhin et al. 2020, GShard; Megatron-LM's
    ``--moe-pad-expert-input-to-capacity``).
    """

    about: ClassVar[str] = "padded:F, as capacity:F, with empty places sent and computed too"
