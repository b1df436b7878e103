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


FEW, BITS = 4_096, 17
"""So many keys are sorted as they are; of more, so many bits of each name a slot in which one of its equals is found."""


def numbered(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of each key among the distinct ones, in their order. Keys are scattered over all bits.

    Of many keys few are distinct as a rule: only those are sorted. Different keys that have one slot are told apart by the next
    bits; where bits run out, all are sorted.
    """
    if len(keys) <= FEW:
        return np.unique(keys, return_inverse=True)[1]
    numbers = np.arange(len(keys))
    equal, held, left, rest = np.empty(len(keys), dtype=np.int64), np.empty(1 << BITS, dtype=np.int64), numbers, keys
    for shift in range(0, 64 - BITS, BITS):
        slot = ((rest >> np.uint64(shift)) & np.uint64((1 << BITS) - 1)).astype(np.int64)
        held[slot] = left
        one = held[slot]
        found = keys[one] == rest
        equal[left[found]] = one[found]
        left, rest = left[~found], rest[~found]
        if not len(left):
            break
    else:
        return np.unique(keys, return_inverse=True)[1]
    ones = np.flatnonzero(equal == numbers)
    number = np.empty(len(keys), dtype=np.int64)
    number[ones[np.argsort(keys[ones])]] = np.arange(len(ones))
    return number[equal]


def first_of_each(number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the numbers 0, 1, … occurs first; each of them occurs."""
    places = np.arange(len(number))
    first = np.full(int(number.max(initial=-1)) + 1, len(number))
    np.minimum.at(first, number, places)
    return first
