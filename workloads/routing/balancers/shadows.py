"""Shadows: popular experts are sent to all ranks, where that takes less than sending their tokens (FasterMoE)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .balancer import CopyWay
from .copying import Copying
from .past import Past

Index = NDArray[np.int64]


@dataclass(frozen=True)
class ExpertShadows(Copying):
    """Popular experts are sent to all ranks, and tokens that want them stay where they are.

    The fullest rank's most popular expert is shadowed as long as the fullest rank then has less by ``worth`` tokens, which is
    what sending an expert's weights and gradients takes. Where nothing is given, that follows from model and machine: an
    expert's bytes over the rank's bandwidth, beside what a token takes, three times the FLOPs forward and four messages.

    Source: He et al. 2022 (FasterMoE), section 4.2, and fmoe/fastermoe/shadow_policy.py; there a rank has one expert.
    """

    worth: float = 0.0
    about: ClassVar[str] = "shadow:N, popular experts sent to all ranks where this saves N tokens (FasterMoE)"
    copies: ClassVar[CopyWay | None] = "broadcast"
    stay: ClassVar[bool] = True

    @classmethod
    def parse(cls, argument: str) -> Self:
        """``shadow``, or ``shadow:64``."""
        try:
            worth = float(argument or 0)
        except ValueError:
            worth = -1.0
        if not 0 <= worth < float("inf"):
            raise ValueError("takes the tokens that sending an expert is worth, such as shadow:64")
        return cls(worth)

    def priced(self, copy_seconds: float, token_seconds: float) -> Self:
        """With a worth from the machine where none was given."""
        return self if self.worth else replace(self, worth=copy_seconds / token_seconds)

    def held(self, loads: Index, ranks: int, past: Past) -> Index:
        """A rank's own experts, and all that are shadowed."""
        local = len(loads) // ranks
        left, shared = loads.reshape(ranks, local).astype(np.float64), 0.0
        on_rank, shadowed = left.sum(axis=1), list[int]()
        while len(shadowed) < len(loads):
            fullest = int(np.argmax(on_rank))
            most, place = on_rank[fullest], int(np.argmax(left[fullest]))
            on_rank[fullest] -= left[fullest, place]
            fewer = shared + left[fullest, place] / ranks
            if most + shared - (on_rank.max() + fewer) <= self.worth:
                break
            shared, left[fullest, place] = fewer, 0
            shadowed.append(fullest * local + place)
        own = np.arange(len(loads)).reshape(ranks, local)
        copies = np.tile(np.array(shadowed, dtype=np.int64), (ranks, 1))
        return np.concatenate([own, copies], axis=1)
