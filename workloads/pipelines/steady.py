"""Pipelines that never flush: orders long enough to look at a step that has the same before and after it."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from .order import Order, Slot
from .pipeline import Pipeline


class Stream(NamedTuple):
    """Orders of an asynchronous pipeline, and the window of one step in them: ``first[stage]`` is its first place.

    Before it whole steps have filled the pipeline; it ends with the orders. What runs ahead of a stage's last backward pass
    stands before that, as it would if there were no end.
    """

    orders: list[Order]
    first: list[int]


def streamed(pipeline: Pipeline, stages: int, micro_batches: int, chunks: int = 1) -> Stream:
    """A step of ``micro_batches`` after at least one other and 4 p micro-batches; a stage's window goes from B to B."""
    before = micro_batches * ceil(max(1, 4 * stages / micro_batches))
    total = before + micro_batches
    orders = pipeline.orders(stages, total + stages, chunks)
    cut = [order[: order.index(Slot("B", total - 1)) + 1] for order in orders]
    return Stream(cut, [order.index(Slot("B", before - 1)) + 1 for order in cut])
