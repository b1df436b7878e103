"""Two-level algorithms: one round within supernodes, another across them."""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import ForPartner
from .patterns import All
from .ring import ring_collection, ring_reduction
from .round import Round


def all_to_all(outer: int, inner: int) -> Iterator[Round]:
    """Blocks for one inner number are first gathered at the rank of that number in their own supernode, then cross together.

    (inner - 1) + (outer - 1) messages a rank instead of P - 1; the payload moves twice. As DeepSpeed-MoE and Tutel's
    2DH.
    """
    if inner > 1:
        yield Round("inner", All(), "exchange", 1.0, ForPartner())
    if outer > 1:
        yield Round("outer", All(), "exchange", 1.0, ForPartner())


def reduce_scatter(outer: int, inner: int) -> Iterator[Round]:
    """A ring in each supernode on the whole vector, then rings across supernodes on 1/inner of it."""
    yield from ring_reduction("inner", inner, 1.0)
    yield from ring_reduction("outer", outer, 1.0 / inner)


def all_gather(outer: int, inner: int) -> Iterator[Round]:
    """The way back of :func:`reduce_scatter`: across supernodes first, then inside each."""
    yield from ring_collection("outer", outer, 1.0 / inner)
    yield from ring_collection("inner", inner, 1.0)


def all_reduce(outer: int, inner: int) -> Iterator[Round]:
    """The hierarchical all-reduce: only 1/inner of the vector leaves a rank for other supernodes."""
    yield from reduce_scatter(outer, inner)
    yield from all_gather(outer, inner)
