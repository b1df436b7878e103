"""A token's choices, drawn one after another without replacement: how probable each expert is to be the c-th.

The choices are the first to ring of exponential clocks, one for each expert, with rates p (successive sampling; Plackett-Luce).
So expert j is the c-th choice with probability ∫ p(j) exp(-p(j) t) P(c - 1 of the others have rung by t) dt.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ALONE = 512
"""Experts that have a class of popularity of their own at least; the others share one with those within :data:`ALIKE`."""

ALIKE = 0.02
"""Relative width of a class of popularity. Its members take the probabilities of its mean in proportion to their own."""

LEAST = 1e-30
"""Popularity that counts as none: such experts are chosen, all alike, where a token has no other left."""

EARLIEST, LATEST = 1e-4, 40.0
"""First time looked at, before which three clocks ring with probability 1e-12, and last in mean waits of the k-th clock."""


def choices(chances: Array, top_k: int) -> Array:
    """Probability ``[top_k, experts]`` of each expert to be a token's first, second, … choice, none chosen twice.

    Exact to some 1e-9 where experts are :data:`ALONE`; the second is p(j) Σ_{i≠j} p(i)/(1 - p(i)). Raises ``ValueError`` for
    more choices than experts.
    """
    if top_k > len(chances):
        raise ValueError(f"{top_k} choices among {len(chances)} experts")
    if top_k == 1:
        return chances[None] / float(chances.sum())
    order = np.argsort(-chances, kind="stable")
    found = np.empty((top_k, len(chances)))
    found[:, order] = _sorted_choices(chances[order].tobytes(), top_k)
    return found


@lru_cache(maxsize=64)
def _sorted_choices(chances: bytes, top_k: int) -> Array:
    """The choices among experts in falling order of popularity: the same in all layers, whoever is the popular one."""
    falling = np.maximum(np.frombuffer(chances), LEAST)
    falling = falling / float(falling.sum())
    rows = np.empty((top_k, len(falling)))
    rows[0] = falling
    others = np.append(np.cumsum(falling[::-1])[-2::-1], 0.0)  # of those behind, so that 1 - p keeps its digits
    odds = falling / np.where(falling > 0.5, others.max(initial=0.0), 1.0 - falling) if len(falling) > 1 else falling
    rows[1] = falling * (odds.sum() - odds)
    if top_k > 2:
        rows[2:] = _later(falling, top_k)[2:]
    rows /= rows.sum(axis=1, keepdims=True)
    rows.setflags(write=False)
    return rows


def _later(falling: Array, top_k: int) -> Array:
    """All choices by the integral over time, on a grid of logarithms (the trapezoid rule converges exponentially there)."""
    starts = _classes(falling)
    size = np.diff(starts, append=len(falling))
    rate = np.add.reduceat(falling, starts) / size
    step = min(0.25, 0.8 / np.sqrt(top_k))
    first, last = log(EARLIEST), log(LATEST / falling[top_k - 1])
    time = np.exp(np.linspace(first, last, 1 + ceil((last - first) / step)))
    spacing = (last - first) / (len(time) - 1)
    most = max(1, (1 << 22) // (len(size) * top_k))
    rows = np.zeros((top_k, len(size)))
    for at in range(0, len(time), most):
        some = time[at : at + most]
        others = _product(_rung(rate, size - 1, some, top_k), _all_others(_rung(rate, size, some, top_k)))
        density = rate[:, None] * some * np.exp(-rate[:, None] * some) * spacing
        rows += np.einsum("bq,bqc->cb", density, others)
    return np.repeat(rows / rate, size, axis=1) * falling


def _classes(falling: Array) -> NDArray[np.int64]:
    """Where classes of popularity start: at every new value, and after :data:`ALONE` at every step of :data:`ALIKE`."""
    kind = np.cumsum(np.append(True, falling[1:] != falling[:-1]))
    if kind[-1] > ALONE:
        late = int(np.searchsorted(kind, ALONE))
        kind[late:] = ALONE + np.floor(np.log(falling[late] / falling[late:]) / ALIKE).astype(np.int64)
    return np.flatnonzero(np.append(True, kind[1:] != kind[:-1]))


def _rung(rate: Array, size: NDArray[np.int64], time: Array, count: int) -> Array:
    """Probability ``[classes, times, count]`` that 0, 1, … clocks of a class have rung."""
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.arange(count)
        ways = np.cumsum(np.log(np.maximum(size[:, None] - number + 1.0, 0.0) / np.maximum(number, 1)), axis=1)
        ways -= ways[:, :1]
        waits = (rate[:, None] * time)[..., None]
        rung = np.where(number > 0, number * np.log(-np.expm1(-waits)), 0.0)
        found: Array = np.exp(ways[:, None] + rung - np.maximum(size[:, None] - number, 0)[:, None] * waits)
    return found


def _product(one: Array, other: Array) -> Array:
    """Products of polynomials, whose coefficients lie along the last axis, without the terms that are too high."""
    count = one.shape[-1]
    found = one[..., :1] * other
    for power in range(1, count):
        found[..., power:] += one[..., power : power + 1] * other[..., : count - power]
    return found


def _all_others(each: Array) -> Array:
    """For each polynomial along the first axis the product of all others: up a binary tree, and down again."""
    levels = [each]
    while len(levels[-1]) > 1:
        top = levels[-1]
        if len(top) % 2:
            one = np.zeros_like(top[:1])
            one[..., 0] = 1.0
            top = levels[-1] = np.concatenate([top, one])
        levels.append(_product(top[0::2], top[1::2]))
    outside = np.zeros_like(levels[-1])
    outside[..., 0] = 1.0
    for level in reversed(levels[:-1]):
        down = np.empty_like(level)
        down[0::2], down[1::2] = (
            _product(outside[: len(level) // 2], level[1::2]),
            _product(outside[: len(level) // 2], level[0::2]),
        )
        outside = down
    return outside[: len(each)]
