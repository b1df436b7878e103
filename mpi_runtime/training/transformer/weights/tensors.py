"""The weights of a model as an optimizer sees them: which tensors each is, and what a rank has of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .....workloads.model.precision import Part
from .....workloads.model.tensors import Tensor
from .shards import Place, Sizes, Weight, WeightKind, cut, local_shape

Index = NDArray[np.int64]

PART_OF: dict[WeightKind, Part] = {
    "embedding": "embedding",
    "logits": "embedding",
    "qkv": "attention",
    "out": "attention",
    "up": "ffn",
    "down": "ffn",
    "norm": "norm",
    "gate": "gate",
    "expert up": "expert",
    "expert down": "expert",
}
"""The part of the model, which decides about formats, of each kind of weight."""


class WeightTensor(NamedTuple):
    """A tensor of a weight: all of its matrix, or one ``row`` of a norm's, which are vectors of their own."""

    tensor: Tensor
    row: int | None = None

    def name_in(self, weight: Weight) -> str:
        """What files call it."""
        return str(weight) + ("" if self.row is None else f".{self.row}")

    def of(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """The tensor's elements in a weight's matrix, or in a rank's part of it, as a flat view."""
        return matrix.reshape(-1) if self.row is None else matrix[self.row]


def part_of(weight: Weight) -> Part:
    """The part of the model that a weight belongs to."""
    return PART_OF[weight.kind]


def tensors_of(weight: Weight, sizes: Sizes) -> Iterator[WeightTensor]:
    """The tensors of a weight."""
    rows, columns = local_shape(weight, sizes, Place())
    if part_of(weight) == "norm":
        yield from (WeightTensor(Tensor(1, columns), row) for row in range(rows))
    else:
        yield WeightTensor(Tensor(rows, columns))


def index_of(weight: Weight, of: WeightTensor, sizes: Sizes, place: Place) -> Index:
    """Where the elements of a rank's part lie in the whole tensor; words that pad the vocabulary, at the end, lie nowhere."""
    rows, columns = local_shape(weight, sizes, Place())
    found = cut(_numbers(rows * columns).reshape(rows, columns), weight, sizes, place) - 1
    mine = of.of(found) - (of.row or 0) * columns
    return mine[: int(np.count_nonzero(mine >= 0))]


def along(place: Place, axes: tuple[str, ...]) -> Iterator[Place]:
    """The places of all members of a rank's group along these axes, in their order."""
    for numbers in np.ndindex(*(place.of(axis) for axis in axes)):
        yield replace(place, number={**place.number, **dict(zip(axes, numbers, strict=True))})


@cache
def _numbers(count: int) -> Index:
    return np.arange(1, count + 1)
