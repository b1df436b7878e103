"""All-to-alls that send every block straight to its destination."""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import ForPartner
from .patterns import All, Shift, Xor
from .round import Round


def linear(outer: int, inner: int) -> Iterator[Round]:
    """Every rank sends every other its block, all at once, as FastMoE does: P - 1 messages a rank."""
    if outer * inner > 1:
        yield Round("group", All(), "exchange", 1.0, ForPartner())


def pairwise_shift(outer: int, inner: int) -> Iterator[Round]:
    """At step k = 1 … P - 1 rank i sends to i + k and receives from i - k (MPICH's pairwise exchange)."""
    size = outer * inner
    if size > 1:
        yield Round("group", Shift(1, stride=1), "exchange", 1 / size, ForPartner(), size - 1)


def pairwise_xor(outer: int, inner: int) -> Iterator[Round]:
    """At step k = 1 … P - 1 ranks i and i XOR k swap their blocks. For powers of two."""
    size = outer * inner
    if size > 1:
        yield Round("group", Xor(1, stride=1), "exchange", 1 / size, ForPartner(), size - 1)
