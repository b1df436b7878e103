"""Even: what routers that are trained to level their load aim at, free of charge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from .balancer import BalancingStep
from .swipe import Swipe


class Even(Swipe):
    """Every rank carries exactly its mean load, as SWIPE makes it, but nothing is charged for getting there.

    A bound, and the best guess for published runs whose routers were balanced by an auxiliary loss (GShard, Lepikhin et al. 2020,
    section 2.2) or forced to be even.
    """

    about: ClassVar[str] = (
        "exactly the mean on every rank, as if routers were balanced by themselves; nothing is charged"
    )

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep]:
        """Nothing."""
        yield from ()
