"""What trains a gate beside the loss: an auxiliary loss for balance, one for small scores, and a bias that follows the load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import gate

Array = NDArray[Any]
Index = NDArray[np.int64]


@dataclass
class GateTraining:
    """How gates are trained.

    ``balance`` weights N sum_i f_i P_i of N experts, with f_i the share of all choices that want expert i and P_i its mean
    chance, of ``pieces`` equal runs of the tokens each (Fedus et al. 2021, equations 4 to 6). ``small`` weights the mean square
    of the logarithm of each token's sum of powers (router z-loss, Zoph et al. 2022, equation 5). After each step the bias of an
    expert, which chooses and does not weight, moves by ``bias_rate`` up or down as its load lies below or above the mean (Wang
    et al. 2024, Algorithm 1).
    """

    balance: float = 0.0
    small: float = 0.0
    bias_rate: float = 0.0
    pieces: int = 1
    biases: dict[int, Array] = field(default_factory=dict)

    def wanted(self, layer: int, scores: Array, top_k: int) -> Index:
        """The experts that tokens choose."""
        if not self.bias_rate:
            return gate.best(scores, top_k)
        return gate.best(gate.chances(scores) + self._bias(layer, scores.shape[1]), top_k)

    def gradient(self, scores: Array, wanted: Index, tokens: float) -> Array | float:
        """Of the scores, where the whole loss is a mean of so many tokens."""
        found: Array | float = 0.0
        if self.balance:
            chances = gate.chances(scores)
            share = (
                self.balance
                * scores.shape[1]
                * np.repeat(self._shares(wanted, scores.shape[1]), len(scores) // self.pieces, axis=0)
            )
            found = found + chances * (share - (share * chances).sum(axis=1, keepdims=True)) / tokens
        if self.small:
            largest = scores.max(axis=1, keepdims=True)
            sums = largest + np.log(np.exp(scores - largest).sum(axis=1, keepdims=True))
            found = found + 2 * self.small / tokens * sums * gate.chances(scores)
        return found if isinstance(found, float) else found.astype(scores.dtype)

    def loss(self, scores: Array, wanted: Index) -> float:
        """Both losses of a layer, as the gradient has them."""
        chances = gate.chances(scores).reshape(self.pieces, -1, scores.shape[1]).mean(axis=1)
        balance = scores.shape[1] * float((self._shares(wanted, scores.shape[1]) * chances).sum(axis=1).mean())
        sums = np.log(np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)) + scores.max(axis=1)
        return float(self.balance * balance + self.small * (sums * sums).mean())

    def adjust(self, counts: Mapping[int, Array]) -> None:
        """Move biases by a step's load of each layer, tokens of all ranks that want each expert."""
        if self.bias_rate:
            for layer, load in counts.items():
                moved = self._bias(layer, len(load)) + self.bias_rate * np.sign(load.mean() - load)
                self.biases[layer] = moved

    def _bias(self, layer: int, experts: int) -> Array:
        return self.biases.get(layer, np.zeros(experts))

    def _shares(self, wanted: Index, experts: int) -> Array:
        """Shares of all choices that want each expert, ``[pieces, experts]``."""
        every = wanted.reshape(self.pieces, -1)
        return np.array([np.bincount(each, minlength=experts) / len(each) for each in every])
