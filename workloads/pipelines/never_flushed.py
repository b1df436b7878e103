"""Pipelines that never flush: orders long enough to look at a step that has the same before and after it."""

from __future__ import annotations

from typing import NamedTuple

from .order import Order
from .pipeline import Pipeline


class Stream(NamedTuple):
    """Orders of an asynchronous pipeline over several steps, and at which place of a stage the last two of them begin.

    A step of a stage goes from backward pass to backward pass, and the last one ends with the orders. What runs ahead of it
    stands before its end, as it would if there were no end.
    """

    orders: list[Order]
    last_but_one: list[int]
    last: list[int]


def streamed(pipeline: Pipeline, stages: int, micro_batches: int, steps: int) -> Stream:
    """``steps`` >= 2 steps of ``micro_batches``, of which the first fill the pipeline."""
    total = steps * micro_batches
    orders = pipeline.orders(stages, total + stages)
    after = [{slot.micro_batch: place + 1 for place, slot in enumerate(each) if slot.kind == "B"} for each in orders]
    cut = [order[: place[total - 1]] for order, place in zip(orders, after, strict=True)]
    starts = ([place.get(total - back * micro_batches - 1, 0) for place in after] for back in (2, 1))
    return Stream(cut, *starts)
