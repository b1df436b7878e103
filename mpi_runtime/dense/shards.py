"""The weights of a dense Transformer, and how strategies cut each of them over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """The shape of a pre-norm GPT without biases, whose output layer shares the embedding's weights.

    Norms have a gain and a shift. A ``gated`` FFN's first product gives twice ``ffn_hidden`` columns: gates and values.
    """

    layers: int
    heads: int
    hidden: int
    ffn_hidden: int
    vocabulary: int
    seq_len: int
    gated: bool = False

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    def names(self) -> Iterator[str]:
        """Names of all weights."""
        yield "embedding"
        for layer in range(self.layers):
            yield from layer_names(layer)
        yield "output.norm"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a whole weight, with a dimension for everything that is cut by itself."""
        hidden, inner = self.hidden, self.ffn_hidden
        return {
            "embedding": (self.vocabulary, hidden),
            "qkv": (hidden, 3, self.heads, self.head),
            "out": (self.heads, self.head, hidden),
            "up": (hidden, 2 if self.gated else 1, inner),
            "down": (inner, hidden),
            "norm": (2, hidden),
        }[kind(name)]


KINDS = ("attention.norm", "attention.qkv", "attention.out", "ffn.norm", "ffn.up", "ffn.down")
"""The weights of a layer, in the order of their operations."""


def layer_names(layer: int) -> list[str]:
    """Names of the weights of a layer, such as ``l3.ffn.up``."""
    return [f"l{layer}.{each}" for each in KINDS]


def kind(name: str) -> str:
    """What kind of weight a name stands for: embedding, qkv, out, up, down or norm."""
    return name.rpartition(".")[2]


@dataclass(frozen=True)
class Place:
    """Where a rank stands in the mesh: its number along each axis, of how many; axes that are not named have one rank.

    Axes are ``tp``, or ``row`` and ``col`` of a square grid in its place, ``cp``, ``pp`` and those of data parallelism.
    ``sequence_parallel``: norms and residuals are cut over ``tp`` as well, by tokens.
    """

    number: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    sequence_parallel: bool = False

    def me(self, axis: str) -> int:
        """Number of this rank along an axis."""
        return self.number.get(axis, 0)

    def of(self, axis: str) -> int:
        """Ranks along an axis."""
        return self.ranks.get(axis, 1)

    @cached_property
    def grid(self) -> int:
        """Rows, and columns, of the grid of two-dimensional tensor parallelism; 1 where there is none."""
        return self.of("row")

    @cached_property
    def by_tokens(self) -> int:
        """Into how many parts tokens of norms and residuals are cut by sequence parallelism."""
        return self.of("tp") if self.sequence_parallel else 1

    def part(self, size: int, axis: str) -> slice:
        """The part of ``size`` things that is this rank's, where they are cut over an axis."""
        each = size // self.of(axis)
        return slice(self.me(axis) * each, (self.me(axis) + 1) * each)


CUTS: dict[str, dict[int, str]] = {
    "embedding": {0: "tp"},
    "qkv": {2: "tp"},
    "out": {0: "tp"},
    "up": {2: "tp"},
    "down": {0: "tp"},
    "norm": {},
}
"""Which dimension of a weight is cut over which axis: columns first, then rows (Megatron, Shoeybi et al. 2019)."""

GRID_CUTS: dict[str, dict[int, str]] = {
    "embedding": {1: "row", 0: "col"},  # the output layer's matrix is its transpose
    "qkv": {0: "row", 2: "col"},
    "out": {0: "row", 2: "col"},
    "up": {0: "row", 2: "col"},
    "down": {0: "row", 1: "col"},
    "norm": {1: "col"},
}
"""The same for a square grid: blocks of every matrix (SUMMA; Optimus, Xu et al. 2021)."""


def cut(whole: Array, name: str, sizes: Sizes, place: Place) -> Array:
    """A rank's part of a whole weight, as the matrix that its products take."""
    part = whole.reshape(sizes.shape(name))[_slices(name, sizes, place)]
    return np.ascontiguousarray(part).reshape(local_shape(name, sizes, place))


def local_shape(name: str, sizes: Sizes, place: Place) -> tuple[int, int]:
    """Shape of a rank's part as a matrix."""
    shape = list(sizes.shape(name))
    for dimension, axis in _cuts(name, place).items():
        shape[dimension] //= place.of(axis)
    inputs = 2 if kind(name) == "out" else 1  # dimensions that a product adds up over
    return prod(shape[:inputs]), prod(shape[inputs:])


def join(parts: list[tuple[Place, Array]], name: str, sizes: Sizes) -> Array:
    """The whole weight from the parts of ranks; of a part that several ranks hold, the last one counts."""
    whole = np.empty(sizes.shape(name), dtype=parts[0][1].dtype)
    for place, part in parts:
        whole[_slices(name, sizes, place)] = part.reshape(whole[_slices(name, sizes, place)].shape)
    return whole.reshape(local_shape(name, sizes, Place()))


def initial(name: str, sizes: Sizes, seed: int) -> Array:
    """A whole weight before training, as a matrix in double precision: any rank can make any, and cut its part out of it.

    Matrices have a standard deviation of one over the root of their inputs, norms a gain near 1 and a shift near 0.
    """
    number = list(sizes.names()).index(name)
    random = np.random.default_rng([seed, 9, number])
    rows, columns = local_shape(name, sizes, Place())
    values: Array = random.standard_normal((rows, columns))
    if kind(name) == "norm":
        values = np.array([[1.0], [0.0]]) + 0.02 * values
    else:
        values *= (sizes.hidden if name == "embedding" else rows) ** -0.5
    return values


def summed_over(name: str, place: Place) -> tuple[str, ...]:
    """Axes beside those of data parallelism over which a weight's gradients have to be added up.

    ``cp``: ranks see other tokens; so do those of a norm where tokens are cut over ``tp`` or ``row``. The embedding is used by
    the first and the last pipeline stage.
    """
    axes = ["cp"]
    if kind(name) == "norm":
        axes += ["tp"] if place.sequence_parallel else []
        axes += ["row"]
    if name == "embedding":
        axes += ["pp"]
    return tuple(axis for axis in axes if place.of(axis) > 1)


def stage_layers(layers: int, stage: int, stages: int, chunk: int = 0, chunks: int = 1) -> range:
    """The layers of one chunk of a pipeline stage: chunk c of stage s is part c · stages + s of the model."""
    each = layers // (stages * chunks)
    first = (chunk * stages + stage) * each
    return range(first, first + each)


def _cuts(name: str, place: Place) -> dict[int, str]:
    return (GRID_CUTS if place.grid > 1 else CUTS)[kind(name)]


def _slices(name: str, sizes: Sizes, place: Place) -> tuple[slice, ...]:
    shape, cuts = sizes.shape(name), _cuts(name, place)
    return tuple(place.part(size, cuts[at]) if at in cuts else slice(None) for at, size in enumerate(shape))
