"""Algorithms on a hypercube: log2 P steps with partners whose numbers differ in one bit (Thakur, Rabenseifner and Gropp 2005)."""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import Aligned, Halved, Whole
from .patterns import CoreXor, Fold, Pattern, Xor, power_within, powers_below
from .round import Round


def doubling_all_reduce(outer: int, inner: int) -> Iterator[Round]:
    """Partners at distance 1, 2, 4, … swap their whole vectors and add: log2 P of the vector, in as many steps.

    Other sizes are folded to a power of two first and unfolded last, a whole vector each.
    """
    size = outer * inner
    yield from _fold(size)
    for mask in _masks(size):
        yield Round("group", _pairs(size, mask), "combine", 1.0, Whole())
    yield from _unfold(size)


def halving_doubling_all_reduce(outer: int, inner: int) -> Iterator[Round]:
    """Halves of the vector at distance 1, quarters at 2, … are added up, then gathered on the way back.

    2 (P - 1)/P of the vector in 2 log2 P steps (Rabenseifner 2004), the largest messages between neighbours. Other sizes
    are folded to a power of two first and unfolded last, a whole vector each.
    """
    size = outer * inner
    masks = list(_masks(size))
    yield from _fold(size)
    for halvings, mask in enumerate(masks, start=1):
        yield Round("group", _pairs(size, mask), "reduce", 0.5**halvings, Halved(halvings, own=False))
    for halvings, mask in reversed(list(enumerate(masks, start=1))):
        yield Round("group", _pairs(size, mask), "gather", 0.5**halvings, Halved(halvings, own=True))
    yield from _unfold(size)


def halving_reduce_scatter(outer: int, inner: int) -> Iterator[Round]:
    """Half of the vector at distance P/2, a quarter at P/4, …: (P - 1)/P in log2 P steps; rank r ends with block r."""
    size = outer * inner
    for mask in reversed(list(_masks(size))):
        yield Round("group", Xor(mask), "reduce", mask / size, Aligned(mask, own=False))


def doubling_all_gather(outer: int, inner: int) -> Iterator[Round]:
    """One block at distance 1, two at 2, …: (P - 1)/P of the vector in log2 P steps."""
    size = outer * inner
    for mask in _masks(size):
        yield Round("group", Xor(mask), "gather", mask / size, Aligned(mask, own=True))


def _masks(size: int) -> Iterator[int]:
    """1, 2, 4, … below the largest power of two within ``size``."""
    return powers_below(power_within(size))


def _pairs(size: int, mask: int) -> Pattern:
    """Pairs of the core; the core of a power of two is the group, which keeps its symmetry."""
    return Xor(mask) if power_within(size) == size else CoreXor(mask)


def _fold(size: int) -> Iterator[Round]:
    if power_within(size) < size:
        yield Round("group", Fold(outward=False), "reduce", 1.0, Whole())


def _unfold(size: int) -> Iterator[Round]:
    if power_within(size) < size:
        yield Round("group", Fold(outward=True), "gather", 1.0, Whole())
