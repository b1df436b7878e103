"""Distinct values, and their numbers, by sorting as little as can be."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


def distinct(values: NDArray[Number]) -> NDArray[Number]:
    """The values that occur, in order.

    ``np.unique`` puts whole numbers into a hash table first, which takes 17 times as long where a million of them differ, and
    imports masked arrays to ask whether this is one.
    """
    ordered = np.sort(values, axis=None)
    new = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


FEW, SLOTS = 4_096, 1 << 17
"""So many keys are sorted as they are; of more, so many slots hold the distinct ones, if no two of these meet."""


def numbered(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of each key among the distinct ones, in their order. Keys are scattered over all bits.

    Of many keys few are distinct as a rule: only those are sorted, each found in the slot that its lowest bits name. Where two
    keys have one slot, all are sorted.
    """
    if len(keys) > FEW:
        slot = (keys & np.uint64(SLOTS - 1)).astype(np.int64)
        held, taken = np.zeros(SLOTS, dtype=np.uint64), np.zeros(SLOTS, dtype=np.bool_)
        held[slot], taken[slot] = keys, True
        if (held[slot] == keys).all():
            used = np.flatnonzero(taken)
            number = np.zeros(SLOTS, dtype=np.int64)
            number[used[np.argsort(held[used])]] = np.arange(len(used))
            return number[slot]
    return np.unique(keys, return_inverse=True)[1]


def first_of_each(number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the numbers 0, 1, … occurs first; each of them occurs."""
    places = np.arange(len(number))
    first = np.full(int(number.max(initial=-1)) + 1, len(number))
    np.minimum.at(first, number, places)
    return first
