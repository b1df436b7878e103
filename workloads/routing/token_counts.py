"""How many tokens choose each expert first, second, …: a draw of the counts alone, for as many tokens as there are.

A token's choices are drawn without replacement, so what one expert has of them others have not, and a token never goes twice to
an expert. Where few sets of experts can have been chosen, tokens are followed from set to set: this is exact. Elsewhere each
expert's counts have their exact law (a multinomial over "first choice", "second choice", …, "not chosen"), and are made to sum to
the tokens, choice by choice, as independent counts would be under this condition (Hájek's approximation of the covariances of
draws without replacement: Hájek 1964; Deville and Tillé 2005, section 4). Against single tokens, covariances of what experts
have in all are then within 3 % of the deviations (Zipf 1), those of first, second, … choices apart within 8 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from .choices import choices

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

MOST_CELLS = 1 << 15
"""Binomial draws up to which tokens are followed from set to set of experts."""

ROUNDS = 40
"""Rounds in which the variances are found that conditioned counts have before."""


def token_counts(
    chances: Array,
    top_k: int,
    tokens: int,
    groups: int,
    random: np.random.Generator,
    all_choices: Callable[[], Array] | None = None,
    sums: bool = False,
) -> Counts:
    """Tokens ``[top_k, groups, experts]`` that choose each expert first, second, …: every row sums to ``tokens``.

    With ``sums``, only those that choose it at all, ``[1, groups, experts]``: of the same draw.

    ``chances`` are those of a first choice; ``all_choices`` gives :func:`~.choices.choices` of them where it is known. Summed
    over choices, an expert has at most ``tokens``.
    """
    experts = len(chances)
    if top_k == 1:
        return random.multinomial(tokens, chances / chances.sum(), size=(1, groups))
    if _few(experts, top_k, groups):
        followed = _from_set_to_set(chances, top_k, tokens, groups, random)
        return followed.sum(axis=0, keepdims=True) if sums else followed
    rows = all_choices() if all_choices else choices(chances, top_k)
    found: Counts = _by_expert(rows, tokens, groups, [random], sums)[0]
    return found


def many_token_counts(
    all_choices: Array, tokens: int, groups: int, randoms: Sequence[np.random.Generator], sums: bool = False
) -> Counts:
    """:func:`token_counts` for each of several generators, ``[generators, top_k, groups, experts]``, to the last bit.

    Where tokens are drawn :func:`by_expert`.
    """
    return _by_expert(all_choices, tokens, groups, randoms, sums)


def by_expert(experts: int, top_k: int, groups: int) -> bool:
    """Whether each expert's counts are drawn by themselves, and not tokens followed, one draw after another."""
    return top_k > 1 and not _few(experts, top_k, groups)


def _few(experts: int, top_k: int, groups: int) -> bool:
    """Whether tokens are followed from set to set."""
    return sum(comb(experts, chosen) for chosen in range(top_k)) * experts * groups <= MOST_CELLS


def _from_set_to_set(chances: Array, top_k: int, tokens: int, groups: int, random: np.random.Generator) -> Counts:
    """The exact law: of the tokens that have chosen a set of experts, how many choose each of the others next."""
    waiting = np.full((groups, 1), tokens, dtype=np.int64)
    rows = []
    for chosen, then in _sets(len(chances), top_k):
        left = np.where(chosen, 0.0, np.maximum(chances, 1e-30))
        going = random.multinomial(waiting, left / left.sum(axis=1, keepdims=True))  # [groups, sets, experts]
        rows.append(going.sum(axis=1))
        if then is not None:
            waiting = np.zeros((groups, int(then.max()) + 1), dtype=np.int64)
            for group, each in enumerate(going):
                waiting[group] = np.bincount(
                    then[~chosen], weights=each[~chosen].astype(np.float64), minlength=waiting.shape[1]
                )
    return np.array(rows)


@lru_cache(maxsize=32)
def _sets(experts: int, top_k: int) -> list[tuple[NDArray[np.bool_], NDArray[np.int64] | None]]:
    """For 0, 1, … chosen experts: who is in each set, and the number of the set that it becomes with one more expert."""
    levels = [list(combinations(range(experts), chosen)) for chosen in range(top_k)]
    found: list[tuple[NDArray[np.bool_], NDArray[np.int64] | None]] = []
    for chosen, sets in enumerate(levels):
        member = np.zeros((len(sets), experts), dtype=bool)
        for number, each in enumerate(sets):
            member[number, list(each)] = True
        then = None
        if chosen + 1 < top_k:
            place = {each: number for number, each in enumerate(levels[chosen + 1])}
            then = np.zeros((len(sets), experts), dtype=np.int64)
            for number, each in enumerate(sets):
                for one in set(range(experts)).difference(each):
                    then[number, one] = place[tuple(sorted((*each, one)))]
        found.append((member, then))
    return found


def _by_expert(
    rows: Array, tokens: int, groups: int, randoms: Sequence[np.random.Generator], sums: bool = False
) -> Counts:
    """Each expert's exact law, and the sums: how many tokens choose it at all, then which of these first, which second."""
    top_k, experts = rows.shape
    chosen = np.minimum(rows.sum(axis=0), 1.0)
    every = np.full((len(randoms), groups, experts), tokens)
    left = _with_sum(every, chosen, top_k * tokens, randoms)
    if sums:
        return left[:, None]
    found = np.empty((len(randoms), top_k, groups, experts), dtype=np.int64)
    for choice in range(top_k - 1):
        later = rows[choice:].sum(axis=0)
        share = np.divide(rows[choice], later, out=np.zeros(experts), where=later > 0)
        found[:, choice] = _with_sum(left, share, tokens, randoms)
        left = left - found[:, choice]
    found[:, -1] = left
    return found


def _with_sum(trials: Counts, share: Array, total: int, randoms: Sequence[np.random.Generator]) -> Counts:
    """Counts ``[generators, groups, experts]`` from binomial laws of so many trials each, if every group has ``total``.

    The counts that are drawn have a variance d, and are moved by d/Σd of what the sum lacks: so they end with d - d²/Σd, which is
    the binomial's. What is then no whole number is rounded at random, the sum being kept.
    """
    mean, variance = trials * share, trials * (share * (1.0 - share))
    before = _before_condition(variance)
    drawn = _counts(mean, before, trials, randoms)
    sums = before.sum(axis=-1, keepdims=True)
    moved = drawn + (total - drawn.sum(axis=-1, keepdims=True)) * np.divide(
        before, sums, out=np.zeros_like(before), where=sums > 0
    )
    moved = np.clip(moved, 0.0, trials)
    lacks = total - moved.sum(axis=-1, keepdims=True)
    room = np.where(lacks > 0, trials - moved, moved)  # what the bounds have cut off, and what no variance could move
    most = room.sum(axis=-1, keepdims=True)
    moved += room * np.divide(lacks, most, out=np.zeros_like(lacks), where=most > 0)
    start = np.stack([random.random((*trials.shape[1:-1], 1)) for random in randoms])
    return rounded(np.clip(moved, 0.0, trials), total, start)


def _before_condition(variance: Array) -> Array:
    """The d with d - d²/Σd = ``variance``, by iteration, for each generator as often as it takes."""
    found, going = variance, np.ones((len(variance), 1, 1), dtype=bool)
    for _ in range(ROUNDS):
        sums = found.sum(axis=-1, keepdims=True)
        better = variance + found * np.divide(found, sums, out=np.zeros_like(found), where=sums > 0)
        close = (np.abs(better - found) <= 1e-4 * better).all(axis=(1, 2), keepdims=True)
        found = better if going.all() else np.where(going, better, found)
        going = going & ~close
        if not going.any():
            break
    return found


def _counts(mean: Array, variance: Array, most: Counts, randoms: Sequence[np.random.Generator]) -> Array:
    """Independent counts of these means and variances: binomial, or Poisson where the variance is the mean and more.

    Counted from whichever of 0 and ``most`` is nearer, where they cannot pass the bound.
    """
    low = mean <= most / 2
    near = np.where(low, mean, most - mean)
    rate = np.clip(1.0 - np.divide(variance, near, out=np.ones_like(near), where=near > 0), 0.0, 1.0)
    poisson = rate < 1e-6
    trials = np.where(poisson, 0.0, np.maximum(np.rint(near / np.where(poisson, 1.0, rate)), np.ceil(near)))
    rate = np.divide(near, trials, out=np.zeros_like(near), where=trials > 0)
    trials, rate, drawn = trials.astype(np.int64), np.minimum(rate, 1.0), np.empty(near.shape)
    for number, random in enumerate(randoms):
        drawn[number] = random.binomial(trials[number], rate[number])
        if poisson[number].any():
            drawn[number] += random.poisson(np.where(poisson[number], near[number], 0.0))
    return np.where(low, drawn, most - drawn)


def rounded(values: Array, total: int, start: Array | float) -> Counts:
    """Whole numbers next to the values that sum to ``total``: systematic sampling of the fractions.

    On average they are the values, if ``start`` is drawn from 0 to 1.
    """
    whole = np.floor(values + 1e-9)
    reached = np.cumsum(np.maximum(values - whole, 0.0), axis=-1)
    more = total - whole.sum(axis=-1, keepdims=True)
    reached = np.minimum(reached, more)
    reached[..., -1:] = more
    extra = np.diff(np.floor(reached + start), axis=-1, prepend=0.0)
    found: Counts = (whole + extra).astype(np.int64)
    return found


def scaled_counts(recorded: Counts | Array, top_k: int, tokens: int) -> Counts:
    """Tokens ``[top_k, experts]`` in the proportions of recorded ones; an expert is as often first as second, … choice."""
    every = rounded(recorded.astype(np.float64) * (top_k * tokens / float(recorded.sum())), top_k * tokens, 0.5)
    ends = np.cumsum(every)
    reached = (
        np.append(0, ends) - np.arange(top_k)[:, None] + top_k - 1
    ) // top_k  # copies are dealt to choices in turn
    return np.diff(reached, axis=1)
