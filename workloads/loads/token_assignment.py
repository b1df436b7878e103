"""What the gate decides for single tokens, so that together they want what the load model has drawn.

The simulator needs how many tokens of a group want each rank's experts; who really sends tokens needs which token wants
which expert. Given the totals of independent draws, every assignment of tokens that has these totals is equally likely:
a random permutation is an exact draw of a first choice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..routing.balancers.balancer import pairs_of
from .loads import LoadModel

Experts = NDArray[np.int64]

MOST_RANKS, MOST_TOKENS = 512, 1 << 20
"""Ranks of a mesh, and tokens of all of them, above which nobody looks at single tokens."""

SWAPS = 20
"""Rounds of swaps in which tokens that chose an expert twice look for another partner."""


def decisions(loads: LoadModel, layer: int, step: int, micro_batch: int, group: int) -> Experts:
    """Experts ``[ranks, tokens, top_k]`` that the tokens of each rank of an expert-parallel group want.

    For the groups that the load model draws they want exactly what ``loads.wanted`` counts; where one group stands for all,
    the others are drawn alike, each from a seed of its own. Every rank that asks gets the same answer.
    """
    total = loads.ranks * loads.tokens
    chances = loads.chances(layer, step)
    random = np.random.default_rng([loads.plan.seed, 6, step, micro_batch, layer, group])
    if group < loads.groups:
        wanted = loads.wanted(layer, step, micro_batch)[:, group]
    else:
        by_rank = chances.reshape(loads.top_k, loads.ranks, -1).sum(axis=-1)
        wanted = np.array([random.multinomial(total, row / row.sum()) for row in by_rank])
    chosen = np.empty((total, loads.top_k), dtype=np.int64)
    for choice in range(loads.top_k):
        ranks = random.permutation(np.repeat(np.arange(loads.ranks), wanted[choice]))
        chosen[:, choice] = _experts(loads, chances[choice], ranks, random)
        _separate(chosen, choice, loads, random)
    return chosen.reshape(loads.ranks, loads.tokens, loads.top_k)


def between(loads: LoadModel, layer: int, step: int, micro_batch: int) -> NDArray[np.int64] | None:
    """Tokens ``[groups, senders, receivers]`` that travel between the ranks of each group, as the gates decide.

    None where the mesh is too large to look at single tokens or has other axes than dp and ep.
    """
    mesh, balancer = loads.mesh, loads.balancer
    if mesh.ranks > MOST_RANKS or mesh.ranks * loads.tokens > MOST_TOKENS:
        return None
    if not set(mesh.axes) <= {"dp", "ep"}:
        return None
    found = []
    for group in range(mesh.ranks // loads.ranks):
        home = decisions(loads, layer, step, micro_batch, group) // (loads.experts // loads.ranks)
        wanted = np.zeros((loads.top_k, loads.ranks, loads.ranks), dtype=np.int64)
        for choice in range(loads.top_k):
            np.add.at(wanted[choice], (np.arange(loads.ranks)[:, None], home[:, :, choice]), 1)
        found.append(pairs_of(balancer, wanted, loads.tokens))
    return np.array(found)


def _experts(loads: LoadModel, chances: NDArray[np.float64], ranks: Experts, random: np.random.Generator) -> Experts:
    """An expert of each token's rank, by popularity."""
    local = loads.experts // loads.ranks
    chosen = np.empty_like(ranks)
    for rank in range(loads.ranks):
        here = np.flatnonzero(ranks == rank)
        shares = chances[rank * local : (rank + 1) * local]
        total = shares.sum()
        even = None if total <= 0 else shares / total
        chosen[here] = rank * local + random.choice(local, size=len(here), p=even)
    return chosen


def _separate(chosen: Experts, choice: int, loads: LoadModel, random: np.random.Generator) -> None:
    """Let tokens whose choice repeats an earlier one trade it with others, where any can: totals stay."""
    earlier = chosen[:, :choice]
    for _ in range(SWAPS if choice else 0):
        twice = np.flatnonzero((earlier == chosen[:, choice : choice + 1]).any(axis=1))
        if not len(twice):
            return
        for token in twice:
            other = int(random.integers(len(chosen)))
            mine, theirs = chosen[token, choice], chosen[other, choice]
            if theirs not in earlier[token] and mine not in earlier[other]:
                chosen[token, choice], chosen[other, choice] = theirs, mine
    for token in np.flatnonzero((earlier == chosen[:, choice : choice + 1]).any(axis=1)):  # the few that chance left
        mine = chosen[token, choice]
        fits = ~np.isin(chosen[:, choice], earlier[token]) & ~(earlier == mine).any(axis=1)
        if fits.any():
            other = random.choice(np.flatnonzero(fits))
            chosen[token, choice], chosen[other, choice] = chosen[other, choice], mine
