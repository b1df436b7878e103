"""SWIPE: tokens above the mean of a popular expert's rank go to ranks with room, so that the load is level everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...schedule.operation import Role
from ...schedule.work import COUNT, COUNT_BYTES, Exchange, Loop
from .balancer import Balancer, BalancingStep, Carried, Tokens
from .past import BEGINNING, Past


@dataclass(frozen=True)
class Swipe(Balancer):
    """Each rank has room for exactly its mean load, tokens · top_k; choice by choice, what exceeds it fills the lowest ranks.

    Source: BaGuaLu overview (ZTE Technology Journal 28(2), 2022) and the code that its authors gave to FastMoE 0.3
    (fmoe/gates/swipe_gate.py). Receivers admit senders in rank order up to their room; the rest is dealt out to free
    room from rank 0 upwards. Who is admitted depends on the senders, how many are does not: so the marginals alone
    give the exact loads.
    """

    about: ClassVar[str] = "exactly the mean on every rank, surplus moved to others (BaGuaLu)"
    level: ClassVar[bool] = True

    def carry(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Carried:
        """Every rank carries ``tokens * top_k``; nothing is dropped."""
        top_k, groups, ranks = wanted.shape
        room = np.full((groups, ranks), tokens * top_k, dtype=np.int64)
        moved = np.zeros(groups, dtype=np.int64)
        for want in wanted:
            admitted = np.minimum(want, room)
            room -= admitted
            surplus = (want - admitted).sum(axis=-1)
            before = np.cumsum(room, axis=-1) - room
            room -= np.clip(surplus[:, None] - before, 0, room)
            moved += surplus
        return Carried(tokens * top_k - room, moved=moved, dropped=np.zeros(groups, dtype=np.int64))

    def pairs(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Tokens:
        """Receivers admit senders in their order; what they refuse fills the room that is left, senders in their order too."""
        top_k, ranks = wanted.shape[:2]
        carried = np.zeros((ranks, ranks), dtype=np.int64)
        room = np.full(ranks, tokens * top_k, dtype=np.int64)
        for want in wanted:
            admitted = np.clip(room - (np.cumsum(want, axis=0) - want), 0, want)
            room -= admitted.sum(axis=0)
            refused, seats = np.cumsum((want - admitted).sum(axis=1)), np.cumsum(room)
            reached = np.minimum(
                refused[:, None], seats
            )  # of the first senders' surplus, what the first receivers take
            dealt = np.diff(np.diff(reached, prepend=0, axis=0), prepend=0, axis=1)
            room -= dealt.sum(axis=0)
            carried += admitted + dealt
        return carried

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep]:
        """For each choice: counts out and accepted counts back, surplus summed, room gathered, and the dealing itself.

        The dealing is a serial loop, the same on every rank, over all ranks and then over the rank's own tokens.
        """
        for choice in range(top_k):
            if ranks > 1:
                each = float(COUNT_BYTES * ranks)
                yield BalancingStep(
                    f"swipe{choice}.counts",
                    Exchange("all-to-all", "linear", ("ep",), each, COUNT),
                    Role.TOKENS_WANTED,
                    choice,
                )
                yield BalancingStep(
                    f"swipe{choice}.accepted",
                    Exchange("all-to-all", "linear", ("ep",), each, COUNT),
                    Role.TOKENS_ACCEPTED,
                    choice,
                )
                yield BalancingStep(
                    f"swipe{choice}.surplus",
                    Exchange("all-reduce", "two-level", ("ep",), each, COUNT),
                    Role.TOKENS_REFUSED,
                    choice,
                )
                yield BalancingStep(
                    f"swipe{choice}.room",
                    Exchange("all-gather", "two-level", ("ep",), each, COUNT),
                    Role.ROOM_LEFT,
                    choice,
                )
            yield BalancingStep(f"swipe{choice}.deal", Loop(float(ranks + tokens)), Role.TOKENS_DEALT, choice)
