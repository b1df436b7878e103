"""Collective algorithms as data: rounds of who sends what to whom, evaluated by each rank for itself.

A group of P ranks is numbered 0 … P-1, those of one supernode next to each other. Two-level algorithms see it as a
grid, (outer, inner) = divmod(rank, ranks in a supernode), and run a round either within a supernode (scope ``inner``),
among the ranks of equal inner number (``outer``), or over the whole group. The simulator turns rounds into flows; the
MPI runtime and the tests send and receive by the same rounds.

Payload is cut into one block for each destination: P blocks of a vector for reductions and gathers, P × P for an
all-to-all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..hardware.errors import InputError, suggestion

Scope = Literal["group", "inner", "outer"]
Action = Literal["exchange", "reduce", "gather"]


@dataclass(frozen=True)
class Round:
    """``steps`` equal steps in a row, within every group of ``scope``.

    ``ring``: at each step a rank sends ``share`` of the payload to the next rank of the scope and receives from the
    previous one. ``all``: it sends every other rank of the scope that rank's blocks at once; all blocks together are
    the payload. What travels is named by one coordinate (:meth:`travels`): those blocks that the sender holds, whose
    destination has this position in the scope.
    """

    scope: Scope
    pattern: Literal["ring", "all"]
    action: Action
    share: float
    steps: int = 1

    def partners(self, position: int, size: int) -> list[int]:
        """Positions in the scope that the rank at ``position`` sends to at each step."""
        if self.pattern == "ring":
            return [(position + 1) % size] if size > 1 else []
        return [other for other in range(size) if other != position]

    def travels(self, position: int, partner: int, step: int, size: int) -> int:
        """The position (as a destination) of the blocks that go from ``position`` to ``partner`` at a step."""
        match self.action:
            case "exchange":
                return partner
            case "reduce":  # so that after size - 1 steps each rank holds its own block, summed
                return (position - step - 1) % size
            case "gather":
                return (position - step) % size

    def messages(self, size: int) -> int:
        """Messages that a rank sends at each step."""
        return size - 1 if self.pattern == "all" else min(1, size - 1)


def _ring(scope: Scope, action: Action, size: int, share: float) -> Iterator[Round]:
    """``size - 1`` steps around a ring, each of one block of the scope (Patarasuk and Yuan 2009)."""
    if size > 1:
        yield Round(scope, "ring", action, share / size, size - 1)


def linear_all_to_all(outer: int, inner: int) -> Iterator[Round]:
    """Every rank sends every other its block directly, all at once, as FastMoE does: P - 1 messages a rank."""
    if outer * inner > 1:
        yield Round("group", "all", "exchange", 1.0)


def two_level_all_to_all(outer: int, inner: int) -> Iterator[Round]:
    """Blocks for one inner number are first gathered at the rank of that number in their own supernode, then cross together.

    (inner - 1) + (outer - 1) messages a rank instead of P - 1; the payload moves twice. As DeepSpeed-MoE and Tutel's
    2DH.
    """
    if inner > 1:
        yield Round("inner", "all", "exchange", 1.0)
    if outer > 1:
        yield Round("outer", "all", "exchange", 1.0)


def ring_reduce_scatter(outer: int, inner: int) -> Iterator[Round]:
    """(P - 1)/P of the vector in P - 1 steps; rank r ends with block r summed."""
    yield from _ring("group", "reduce", outer * inner, 1.0)


def ring_all_gather(outer: int, inner: int) -> Iterator[Round]:
    """(P - 1)/P of the vector in P - 1 steps; every rank ends with all blocks."""
    yield from _ring("group", "gather", outer * inner, 1.0)


def ring_all_reduce(outer: int, inner: int) -> Iterator[Round]:
    """A reduce-scatter, then an all-gather: 2 (P - 1)/P of the vector."""
    yield from ring_reduce_scatter(outer, inner)
    yield from ring_all_gather(outer, inner)


def two_level_reduce_scatter(outer: int, inner: int) -> Iterator[Round]:
    """A ring in each supernode on the whole vector, then rings across supernodes on 1/inner of it."""
    yield from _ring("inner", "reduce", inner, 1.0)
    yield from _ring("outer", "reduce", outer, 1.0 / inner)


def two_level_all_gather(outer: int, inner: int) -> Iterator[Round]:
    """The way back of :func:`two_level_reduce_scatter`: across supernodes first, then inside each."""
    yield from _ring("outer", "gather", outer, 1.0 / inner)
    yield from _ring("inner", "gather", inner, 1.0)


def two_level_all_reduce(outer: int, inner: int) -> Iterator[Round]:
    """The hierarchical all-reduce: only 1/inner of the vector leaves a rank for other supernodes."""
    yield from two_level_reduce_scatter(outer, inner)
    yield from two_level_all_gather(outer, inner)


Algorithm = Callable[[int, int], Iterator[Round]]

ALGORITHMS: dict[str, dict[str, Algorithm]] = {
    "all-to-all": {"linear": linear_all_to_all, "two-level": two_level_all_to_all},
    "reduce-scatter": {"ring": ring_reduce_scatter, "two-level": two_level_reduce_scatter},
    "all-gather": {"ring": ring_all_gather, "two-level": two_level_all_gather},
    "all-reduce": {"ring": ring_all_reduce, "two-level": two_level_all_reduce},
}


def rounds(operation: str, algorithm: str, outer: int, inner: int) -> list[Round]:
    """The rounds of an algorithm on ``outer * inner`` ranks; raises :class:`InputError` for an unknown algorithm."""
    known = ALGORITHMS[operation]
    if algorithm not in known:
        raise InputError(f"{operation} {algorithm}: no such algorithm{suggestion(algorithm, known)}")
    return list(known[algorithm](outer, inner))
