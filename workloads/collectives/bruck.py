"""Algorithms of ceil(log2 P) steps for any P: distances 1, 2, 4, … around a ring (Bruck et al. 1997)."""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import Cyclic, NoBlocks, OffsetBit
from .patterns import Shift, powers_below
from .round import Round


def all_to_all(outer: int, inner: int) -> Iterator[Round]:
    """Blocks travel by the bits of their offset: log2 P messages a rank, each of about half the payload."""
    size = outer * inner
    for distance in powers_below(size):
        content = OffsetBit(distance)
        yield Round("group", Shift(distance), "exchange", content.count(size) / size, content)


def all_gather(outer: int, inner: int) -> Iterator[Round]:
    """Everyone passes on all it has, 1, 2, 4, … ranks back: (P - 1)/P of the vector."""
    size = outer * inner
    for distance in powers_below(size):
        count = min(distance, size - distance)
        yield Round("group", Shift(-distance), "gather", count / size, Cyclic(0, count=count))


def dissemination_barrier(outer: int, inner: int) -> Iterator[Round]:
    """Empty messages over distances 1, 2, 4, …: then everyone has heard of everyone (Hensgen, Finkel and Manber 1988)."""
    for distance in powers_below(outer * inner):
        yield Round("group", Shift(distance), "gather", 0.0, NoBlocks())
