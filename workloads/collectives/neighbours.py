"""Shifts: every rank hands its payload to its neighbour, as ring attention does with keys and values (Li et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator

from .blocks import Whole
from .patterns import Shift
from .round import Round


def to_next(outer: int, inner: int) -> Iterator[Round]:
    """One message of the whole payload to position + 1; what a rank ends with is that of position - 1."""
    yield from _shift(outer * inner, 1)


def to_previous(outer: int, inner: int) -> Iterator[Round]:
    """One message of the whole payload to position - 1; what a rank ends with is that of position + 1."""
    yield from _shift(outer * inner, -1)


def _shift(size: int, by: int) -> Iterator[Round]:
    if size > 1:
        yield Round("group", Shift(by), "gather", 1.0, Whole())
