"""What the gate decides for single tokens, so that together they want what the load model has drawn.

The simulator needs how many tokens of a group want each expert first, second, …; who really sends tokens needs which token wants
which expert. The counts are drawn (:meth:`~athanor.workloads.loads.loads.LoadModel.of_experts`), and then dealt out at random to
the tokens, so that none wants an expert twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..routing.balancers.balancer import pairs_of
from .loads import LoadModel

Experts = NDArray[np.int64]

MOST_RANKS, MOST_TOKENS = 512, 1 << 20
"""Ranks of a mesh, and tokens of all of them, above which nobody looks at single tokens."""

SWAPS = 8
"""Rounds in which tokens that would choose an expert twice look for another token to trade with."""

TRIES = 32
"""Tokens looked at for one that lacks an expert before all of them are."""


def decisions(loads: LoadModel, layer: int, step: int, micro_batch: int, group: int) -> Experts:
    """Experts ``[ranks, tokens, top_k]`` that the tokens of each rank of an expert-parallel group want.

    They want exactly what ``loads.of_experts`` counts. Every rank that asks gets the same answer.
    """
    random = loads.random(6, layer, step, micro_batch, group)
    wanted = loads.of_experts(layer, step, micro_batch)[:, group]
    return dealt(wanted, random).reshape(loads.ranks, loads.tokens, loads.top_k)


def between(loads: LoadModel, layer: int, step: int, micro_batch: int) -> NDArray[np.int64] | None:
    """Tokens ``[groups, senders, receivers]`` that travel between the ranks of each group, as the gates decide.

    None where the mesh is too large to look at single tokens or has other axes than dp and ep, and where experts are copied.
    """
    mesh, balancer = loads.mesh, loads.balancer
    if mesh.ranks > MOST_RANKS or mesh.ranks * loads.tokens > MOST_TOKENS:
        return None
    if not set(mesh.axes) <= {"dp", "ep"} or balancer.copies is not None:
        return None
    found = []
    for group in range(mesh.ranks // loads.ranks):
        home = decisions(loads, layer, step, micro_batch, group) // (loads.experts // loads.ranks)
        wanted = np.zeros((loads.top_k, loads.ranks, loads.ranks), dtype=np.int64)
        for choice in range(loads.top_k):
            np.add.at(wanted[choice], (np.arange(loads.ranks)[:, None], home[:, :, choice]), 1)
        past = loads.past(layer, step, micro_batch, group)
        found.append(pairs_of(balancer, wanted, loads.tokens, past))
    return np.array(found)


def dealt(counts: NDArray[np.int64], random: np.random.Generator) -> Experts:
    """Experts ``[tokens, top_k]`` of single tokens, none of which has one twice, from ``counts[choice, expert]``.

    Every choice has as many as there are tokens, and no expert more in all: then there is always such an assignment (Kőnig: a
    bipartite multigraph needs no more colours than its largest degree; tokens are the colours).
    """
    tokens = int(counts[0].sum())
    chosen = np.empty((tokens, len(counts)), dtype=np.int64)
    for choice, each in enumerate(counts):
        chosen[:, choice] = random.permutation(np.repeat(np.arange(len(each)), each))
        for token in _trade(chosen, choice, random):
            _exchange(chosen, choice, int(token), random)
    return chosen


def _twice(chosen: Experts, choice: int, experts: Experts) -> NDArray[np.bool_]:
    """Which tokens have an expert among their choices before this one."""
    found: NDArray[np.bool_] = (chosen[:, :choice] == experts[:, None]).any(axis=1)
    return found


def _trade(chosen: Experts, choice: int, random: np.random.Generator) -> Experts:
    """Let tokens whose choice repeats an earlier one trade it with random others, where both can; returns those that are left."""
    left = np.flatnonzero(_twice(chosen, choice, chosen[:, choice]))
    for _ in range(SWAPS if choice else 0):
        others = random.permutation(len(chosen))[: len(left)]
        first, second = left[: len(others)], others
        once = ~np.isin(second, left)  # so that no token is in two trades
        first, second = first[once], second[once]
        mine, theirs = chosen[first, choice], chosen[second, choice]
        fits = ~_twice(chosen[first], choice, theirs) & ~_twice(chosen[second], choice, mine)
        chosen[first[fits], choice], chosen[second[fits], choice] = theirs[fits], mine[fits]
        left = np.setdiff1d(left, first[fits])
    return left


def _exchange(chosen: Experts, choice: int, token: int, random: np.random.Generator) -> None:
    """Free a token's earlier choices of the expert that it is to have now.

    Another token that lacks the expert takes it over for what it chose at that place; should the first have that already, they
    trade this too, and so on: a chain that ends, since it never comes back to this choice (Kempe).
    """
    expert = chosen[token, choice]
    earlier = chosen[:, :choice]
    if not (earlier[token] == expert).any():  # an exchange of another token has freed it
        return
    other = _lacking(chosen[:, : choice + 1], expert, random)
    place = int(np.flatnonzero(earlier[token] == expert)[0])
    while True:
        given = earlier[other, place]
        before = np.flatnonzero(earlier[token] == given)
        earlier[token, place], earlier[other, place] = given, earlier[token, place]
        if not len(before):
            return
        place = int(before[0])


def _lacking(chosen: Experts, expert: int, random: np.random.Generator) -> int:
    """A token that has not chosen an expert: guessed while that is quick."""
    for other in random.integers(len(chosen), size=TRIES):
        if not (chosen[other] == expert).any():
            return int(other)
    return int(random.choice(np.flatnonzero(~(chosen == expert).any(axis=1))))
