"""Rings: P - 1 steps of one block to the next rank (Patarasuk and Yuan 2009)."""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import Cyclic
from .patterns import Shift
from .round import Round, Scope


def ring_reduction(scope: Scope, size: int, share: float) -> Iterator[Round]:
    """``size - 1`` steps of 1/size of ``share``; each position ends with its own block, summed."""
    if size > 1:
        yield Round(scope, Shift(1), "reduce", share / size, Cyclic(-1, -1), size - 1)


def ring_collection(scope: Scope, size: int, share: float) -> Iterator[Round]:
    """``size - 1`` steps of 1/size of ``share``; each position starts with its own block and ends with all."""
    if size > 1:
        yield Round(scope, Shift(1), "gather", share / size, Cyclic(0, -1), size - 1)


def reduce_scatter(outer: int, inner: int) -> Iterator[Round]:
    """(P - 1)/P of the vector in P - 1 steps; rank r ends with block r summed."""
    yield from ring_reduction("group", outer * inner, 1.0)


def all_gather(outer: int, inner: int) -> Iterator[Round]:
    """(P - 1)/P of the vector in P - 1 steps; every rank ends with all blocks."""
    yield from ring_collection("group", outer * inner, 1.0)


def all_reduce(outer: int, inner: int) -> Iterator[Round]:
    """A reduce-scatter, then an all-gather: 2 (P - 1)/P of the vector."""
    yield from reduce_scatter(outer, inner)
    yield from all_gather(outer, inner)
