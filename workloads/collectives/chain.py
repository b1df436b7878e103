"""Chains: a broadcast or reduce in chunks, each passed on along the ranks while the next one comes.

The payload crosses every link between neighbours once, so a chain takes about one payload's time where a binomial tree takes
log2 P (NCCL's broadcast and reduce; van de Geijn and Watts 1997 on SUMMA's). Chunk c is at position p in step c + p: the chain
fills in P - 2 steps, all of it sends in the next, and it drains in P - 2.
"""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import Chunk
from .patterns import Line
from .round import Action, Round

SHARE_OF_FILLING = 8
"""Chunks for each step of filling: a chain takes (1 + 1/8) of its payload's time, however long it is."""


def broadcast(outer: int, inner: int) -> Iterator[Round]:
    """From position 0 to the last: C + P - 2 steps of 1/C of the vector, C = 8 (P - 2) chunks (one for a pair)."""
    yield from _chain(outer * inner, "gather", down=True)


def reduce(outer: int, inner: int) -> Iterator[Round]:
    """From the last position to 0, each adding its own to what comes: the mirror image of :func:`broadcast`."""
    yield from _chain(outer * inner, "reduce", down=False)


def _chain(size: int, action: Action, down: bool) -> Iterator[Round]:
    filling = size - 2
    chunks = max(1, SHARE_OF_FILLING * filling)
    if filling > 0:
        yield Round("group", Line("fills", down), action, 1 / chunks, Chunk(0, chunks, down), filling)
    if size > 1:
        full = Chunk(filling, chunks, down)
        yield Round("group", Line("full", down), action, 1 / chunks, full, chunks - filling)
    if filling > 0:
        yield Round("group", Line("drains", down), action, 1 / chunks, Chunk(chunks, chunks, down), filling)
