"""Trees of root 0, and what is made with them."""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import Subtree, Whole
from .patterns import BinaryTree, Binomial, Single, powers_below
from .ring import ring_collection
from .round import Round


def binary_tree_all_reduce(outer: int, inner: int) -> Iterator[Round]:
    """Whole vectors up a binary tree, added on the way, then the sum down again: at most 4 log2 P steps.

    A parent takes its children one after the other (Sanders, Speck and Träff 2009, without their pipeline; NCCL's tree).
    """
    edges = list(_edges(outer * inner))
    for height, left in edges:
        yield Round("group", BinaryTree(height, left, down=False), "reduce", 1.0, Whole())
    for height, left in reversed(edges):
        yield Round("group", BinaryTree(height, left, down=True), "gather", 1.0, Whole())


def binomial_broadcast(outer: int, inner: int) -> Iterator[Round]:
    """Who has the vector sends it on, over distances P/2, P/4, …: log2 P steps, rounded up (Thakur et al. 2005)."""
    for distance in reversed(list(powers_below(outer * inner))):
        yield Round("group", Binomial(distance, down=True), "gather", 1.0, Whole())


def binomial_reduce(outer: int, inner: int) -> Iterator[Round]:
    """The way back of :func:`binomial_broadcast`, adding: rank 0 ends with the sum."""
    for distance in powers_below(outer * inner):
        yield Round("group", Binomial(distance, down=False), "reduce", 1.0, Whole())


def scatter_all_gather_broadcast(outer: int, inner: int) -> Iterator[Round]:
    """The vector's blocks go down a binomial tree, each to its rank, then around a ring to all.

    2 (P - 1)/P of the vector (Barnett, Shuler, van de Geijn et al. 1994). Where P is no power of two, one subtree of a
    level may be smaller than its others: its message, being shorter, is a round of its own.
    """
    size = outer * inner
    for distance in reversed(list(powers_below(size))):
        if 2 * distance <= size:
            whole = Binomial(distance, down=True, subtree=distance)
            yield Round("group", whole, "gather", distance / size, Subtree(distance))
        last = size // distance * distance
        if last < size and last // distance % 2 == 1:
            cut = Single(last - distance, last)
            yield Round("group", cut, "gather", (size - last) / size, Subtree(distance))
    yield from ring_collection("group", size, 1.0)


def _edges(size: int) -> Iterator[tuple[int, bool]]:
    """(height, whether left) of all kinds of edges that the binary tree has, from the leaves up."""
    for height, low in enumerate(powers_below(size)):
        if 2 * low < size:
            yield height, True
        if 3 * low < size or 2 * low >= size:  # the highest node has no parent above it and hangs behind the root
            yield height, False
