"""The gate of a layer with experts: chances, choices and the weights of answers, and the way back of their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.int64]


def chances(scores: Array) -> Array:
    """Softmax over the experts, ``[tokens, experts]``."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def best(scores: Array, top_k: int) -> Index:
    """The ``top_k`` experts of the highest scores of each token, the highest first; of equals, the first expert."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :top_k]


def weights(chance: Array, expert: Index, picked: bool = False) -> Array:
    """What the answer of each choice counts, ``[tokens, top_k]``: nothing where it was dropped, which is an expert below 0.

    A single choice counts its chance (Fedus et al. 2021, equation 2); of several, each its share of all their chances (GShard,
    Lepikhin et al. 2020; Mixtral, Jiang et al. 2024), unless experts have ``picked`` their tokens (Zhou et al. 2022).
    """
    taken = _taken(chance, expert)
    total = taken.sum(axis=1, keepdims=True)
    result: Array = taken if picked or expert.shape[1] == 1 else taken / np.where(total > 0, total, 1)
    return result


def weights_grad(chance: Array, expert: Index, gradient: Array, picked: bool = False) -> Array:
    """Gradient of the scores ``[tokens, experts]``, from that of the weights."""
    taken = _taken(chance, expert)
    if expert.shape[1] > 1 and not picked:
        total = taken.sum(axis=1, keepdims=True)
        total = np.where(total > 0, total, 1)
        gradient = (gradient - (gradient * taken).sum(axis=1, keepdims=True) / total) / total
    of_chance = np.zeros_like(chance)
    kept = expert >= 0
    np.add.at(of_chance, (np.nonzero(kept)[0], expert[kept]), gradient[kept])
    result: Array = chance * (of_chance - (of_chance * chance).sum(axis=1, keepdims=True))
    return result


def _taken(chance: Array, expert: Index) -> Array:
    """The chance of each choice's expert."""
    found = np.take_along_axis(chance, np.maximum(expert, 0), axis=1)
    return np.where(expert < 0, chance.dtype.type(0), found)
