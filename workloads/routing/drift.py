"""Drift: how popularity and the tokens that follow it change from one training step to the next.

With ``drift`` d the loads of a layer's experts are a stationary process whose correlation from step to step is 1 - d.
Experts trade places in the order of popularity: who is popular wanders, how uneven popularity is does not. What else chance
makes of a step's tokens is kept with probability 1 - d, or drawn anew. So 0 keeps the step as it is, and 1 has nothing to do
with the step before.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


class Walk:
    """A layer's experts in the order of popularity, step after step; each step is drawn from a seed of its own."""

    def __init__(self, experts: int, layer: int, drift: float, seed: int) -> None:
        self.layer, self.drift, self.seed = layer, drift, seed
        self.first: Places = np.random.default_rng([seed, 1, layer]).permutation(experts)
        self.trading = trading_chance(drift, experts)
        self._begin()

    def _begin(self) -> None:
        self.step, self.places, self.drawn = 0, self.first, 0

    def at(self, step: int) -> tuple[Places, int]:
        """The places at a step, and the step since which its tokens are as they are.

        Going on from the step asked for last costs only the steps between.
        """
        if not self.drift:
            return self.first, 0
        if step < self.step:
            self._begin()
        while self.step < step:
            self.step += 1
            random = np.random.default_rng([self.seed, 2, self.layer, self.step])
            trading = np.flatnonzero(random.random(len(self.places)) < self.trading)
            self.places = self.places.copy()
            self.places[trading] = self.places[random.permutation(trading)]
            if random.random() < self.drift:
                self.drawn = self.step
        return self.places, self.drawn


def trading_chance(drift: float, experts: int) -> float:
    """With which probability an expert is among those that trade places, so that loads keep a correlation of 1 - ``drift``.

    Of E experts n trade: then (E - n) / (E - 1) of the correlation is left, or all where none does. With probability t each this
    is ((1 - t) E - (1 - t)^E) / (E - 1) in the mean, which falls with t.
    """
    if experts < 2:
        return drift
    low, high = 0.0, 1.0
    for _ in range(60):
        stay = 1.0 - (low + high) / 2
        left = (stay * experts - stay**experts) / (experts - 1)
        low, high = (1.0 - stay, high) if left > 1.0 - drift else (low, 1.0 - stay)
    return high


@lru_cache(maxsize=1024)
def walk(experts: int, layer: int, drift: float, seed: int) -> Walk:
    """The walk of a layer, which goes on where it was asked last."""
    return Walk(experts, layer, drift, seed)
