"""Collective algorithms as data: rounds of who sends what to whom, evaluated by each rank for itself.

A group of P ranks is numbered 0 … P-1, those of one supernode next to each other. Two-level algorithms see it as a
grid, (outer, inner) = divmod(rank, ranks in a supernode), and run a round either within a supernode (scope ``inner``),
among the ranks of equal inner number (``outer``), or over the whole group. The simulator turns rounds into flows; the
MPI runtime and the tests send and receive by the same rounds.

One file for each family of algorithms, and one line here for each algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...hardware.errors import InputError, suggestion
from ...hardware.registry import Registry
from . import bruck, chain, direct, hypercube, neighbours, ring, trees, two_level
from .patterns import All, BinaryTree, Binomial, CoreXor, Fold, Index, Line, Pattern, Shift, Single, Xor
from .round import Action, Round, Scope


@dataclass(frozen=True)
class Algorithm:
    """How to make the rounds on (outer, inner) ranks, a line about it, and what it needs or can.

    ``power_of_two``: runs on that many ranks only. ``grid``: needs groups with equal parts in their supernodes. ``uneven``:
    an all-to-all-v may run it, because no message holds blocks whose sizes its sender does not know.
    """

    rounds: Callable[[int, int], Iterator[Round]]
    about: str
    power_of_two: bool = False
    grid: bool = False
    uneven: bool = False


_KNOWN: dict[str, dict[str, Algorithm]] = {
    "all-to-all": {
        "linear": Algorithm(direct.linear, "every block straight to its rank, all at once", uneven=True),
        "pairwise-shift": Algorithm(direct.pairwise_shift, "step k: to rank i + k, from rank i - k", uneven=True),
        "pairwise-xor": Algorithm(
            direct.pairwise_xor, "step k: ranks i and i XOR k swap; powers of two", power_of_two=True, uneven=True
        ),
        "bruck": Algorithm(bruck.all_to_all, "log2 P steps of about half the payload"),
        "two-level": Algorithm(two_level.all_to_all, "within supernodes, then across them", grid=True, uneven=True),
    },
    "reduce-scatter": {
        "ring": Algorithm(ring.reduce_scatter, "P - 1 steps of 1/P to the next rank"),
        "recursive-halving": Algorithm(
            hypercube.halving_reduce_scatter, "log2 P steps of 1/2, 1/4, …; powers of two", power_of_two=True
        ),
        "two-level": Algorithm(two_level.reduce_scatter, "rings within supernodes, then across them", grid=True),
    },
    "all-gather": {
        "ring": Algorithm(ring.all_gather, "P - 1 steps of 1/P to the next rank"),
        "recursive-doubling": Algorithm(
            hypercube.doubling_all_gather, "log2 P steps of 1, 2, 4, … blocks; powers of two", power_of_two=True
        ),
        "bruck": Algorithm(bruck.all_gather, "log2 P steps of 1, 2, 4, … blocks, for any P"),
        "two-level": Algorithm(two_level.all_gather, "rings across supernodes, then within them", grid=True),
    },
    "all-reduce": {
        "ring": Algorithm(ring.all_reduce, "ring reduce-scatter, then ring all-gather"),
        "recursive-doubling": Algorithm(hypercube.doubling_all_reduce, "log2 P swaps of the whole vector"),
        "halving-doubling": Algorithm(
            hypercube.halving_doubling_all_reduce, "halves, quarters, … there and back (Rabenseifner)"
        ),
        "binary-tree": Algorithm(trees.binary_tree_all_reduce, "up a binary tree, then down it"),
        "two-level": Algorithm(two_level.all_reduce, "rings within supernodes, across, and within again", grid=True),
    },
    "broadcast": {
        "binomial": Algorithm(trees.binomial_broadcast, "down a binomial tree"),
        "chain": Algorithm(chain.broadcast, "chunk after chunk along the ranks: about one payload's time"),
        "scatter-all-gather": Algorithm(
            trees.scatter_all_gather_broadcast, "blocks down a binomial tree, then around a ring (van de Geijn)"
        ),
    },
    "reduce": {
        "binomial": Algorithm(trees.binomial_reduce, "up a binomial tree"),
        "chain": Algorithm(chain.reduce, "chunk after chunk along the ranks: about one payload's time"),
    },
    "shift": {
        "next": Algorithm(neighbours.to_next, "the whole payload to rank i + 1"),
        "previous": Algorithm(neighbours.to_previous, "the whole payload to rank i - 1"),
    },
    "barrier": {"dissemination": Algorithm(bruck.dissemination_barrier, "log2 P empty messages around a ring")},
}

ALGORITHMS: Mapping[str, Registry[Algorithm]] = MappingProxyType(
    {
        operation: Registry("algorithm", known, flag=operation, interface=Algorithm)
        for operation, known in _KNOWN.items()
    }
)
"""Algorithms by operation and name. Broadcasts start at rank 0, reduces end there; of a shift they are two directions."""

ROOTED = ("broadcast", "reduce")
"""Operations that an exchange may give another root: ranks are then numbered from that one on, around the end."""


def find(operation: str, algorithm: str) -> Algorithm:
    """The algorithm of that name; raises :class:`InputError` for an unknown operation or algorithm."""
    if operation not in ALGORITHMS:
        raise InputError(f"{operation}: no such collective{suggestion(operation, ALGORITHMS)}")
    return ALGORITHMS[operation].find(algorithm)


def supports_uneven(operation: str, algorithm: str) -> bool:
    """Whether an all-to-all-v, in which bytes differ from rank to rank, may run this algorithm."""
    return find(operation, algorithm).uneven


def check(operation: str, algorithm: str, ranks: int, uneven: bool = False) -> None:
    """Raise :class:`InputError` unless the algorithm exists and runs on so many ranks, and with ``uneven`` blocks."""
    chosen, known = find(operation, algorithm), ALGORITHMS[operation]
    if ranks < 1:
        raise InputError(f"{operation} {algorithm}: {ranks} ranks, must be at least 1")
    if chosen.power_of_two and ranks & (ranks - 1):
        others = ", ".join(name for name, each in known.items() if not (each.power_of_two or each.grid))
        raise InputError(f"{operation} {algorithm}: {ranks} ranks, must be a power of two; {others} run on any number")
    if uneven and not chosen.uneven:
        others = ", ".join(name for name, each in known.items() if each.uneven)
        raise InputError(f"{operation} {algorithm}: blocks of unequal size cannot travel together; {others} take them")


def rounds(operation: str, algorithm: str, outer: int, inner: int) -> list[Round]:
    """The rounds of an algorithm on ``outer * inner`` ranks; raises :class:`InputError` as :func:`check` does."""
    check(operation, algorithm, outer * inner)
    return list(find(operation, algorithm).rounds(outer, inner))


__all__ = [
    "ALGORITHMS",
    "ROOTED",
    "Action",
    "Algorithm",
    "All",
    "BinaryTree",
    "Binomial",
    "CoreXor",
    "Fold",
    "Index",
    "Line",
    "Pattern",
    "Round",
    "Scope",
    "Shift",
    "Single",
    "Xor",
    "check",
    "find",
    "rounds",
    "supports_uneven",
]
