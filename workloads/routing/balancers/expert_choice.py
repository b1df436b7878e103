"""Expert choice: experts pick their tokens, each as many as any other, so that loads are level by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import InputError
from ...schedule.operation import Role
from ...schedule.work import Loop
from .balancer import Balancer, BalancingStep, Carried, Tokens
from .past import BEGINNING, Past


class ExpertChoice(Balancer):
    """Of the tokens of each rank, every expert picks the tokens * top_k / experts that like it best.

    A token may be picked by many experts or by none; top_k is how many it has in the mean. Since each rank's tokens are a group
    of their own, nobody has to be told what others want, and every rank sends as many tokens to each. What is moved are tokens
    above the mean of what gates would choose: at least so many go elsewhere.

    Source: Zhou et al. 2022 (Mixture-of-Experts with Expert Choice Routing), section 3.2, without the limit of equation 3.
    """

    about: ClassVar[str] = "experts pick their tokens, each as many as any other (Zhou et al. 2022)"
    level: ClassVar[bool] = True
    picks: ClassVar[bool] = True

    def require(self, experts: int, ranks: int, tokens: int, top_k: int) -> None:
        """Every expert takes as many tokens of each rank."""
        if tokens * top_k % experts:
            raise InputError(
                f"--balancer expert-choice: {tokens:,} tokens of a rank times {top_k} do not divide over {experts:,} experts"
                " that pick as many each (--tokens-per-rank, --micro-batch)"
            )

    def carry(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Carried:
        """Every rank carries ``tokens * top_k``; nothing is dropped."""
        mean = tokens * len(wanted)
        every = wanted.sum(axis=0)
        moved = np.maximum(every - mean, 0).sum(axis=-1)
        return Carried(np.full_like(every, mean), moved=moved, dropped=0 * moved)

    def pairs(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Tokens:
        """As many from each rank to each."""
        top_k, ranks = wanted.shape[:2]
        return np.full((ranks, ranks), tokens * top_k // ranks, dtype=np.int64)

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep]:
        """Ranks note which of their tokens were picked."""
        yield BalancingStep("expert-choice.pick", Loop(float(tokens * top_k)), Role.TOKENS_DROPPED)


def picked(chances: NDArray[np.floating[Any]], top_k: int) -> Tokens:
    """The experts that pick each token ``[tokens, most]``, from their chances ``[tokens, experts]``; -1 where there are fewer.

    Of tokens that like an expert as much, the first are picked.
    """
    tokens, experts = chances.shape
    best = np.argsort(-chances, axis=0, kind="stable")[: tokens * top_k // experts]
    mine = np.zeros((tokens, experts), dtype=bool)
    np.put_along_axis(mine, best, True, axis=0)
    width = max(1, int(mine.sum(axis=1).max()))
    found = np.where(mine, np.arange(experts), experts)
    found = np.sort(found, axis=1)[:, :width]
    return np.where(found == experts, -1, found)
