"""The weights of a Transformer, and how strategies cut each of them over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .....workloads.mesh.axes import CONTEXT
from .....workloads.plan.setting import Setting

Array = NDArray[Any]
Operator = Literal["embedding", "attention", "ffn", "moe", "shared experts", "output"]
"""What of the model a weight belongs to: a half of a layer, or an end."""

ProductWeight = Literal["qkv", "out", "up", "down", "gate", "logits"]
"""The kinds of weights that products take."""

ExpertWeight = Literal["expert up", "expert down"]
"""Both matrices of a routed expert."""

WeightKind = Literal["embedding", "norm", ProductWeight, ExpertWeight]


class Weight(NamedTuple):
    """Which weight of a model: the key of weights and gradients. ``layer`` is None of what is outside layers.

    As text, which is for people only: ``l3.ffn.up``, ``output.norm``, ``embedding``, ``l3.moe.expert up.5``.
    """

    layer: int | None
    operator: Operator
    kind: WeightKind
    expert: int | None = None

    def __str__(self) -> str:
        """Layer, operator, kind and the number of the expert."""
        place = "" if self.layer is None else f"l{self.layer}."
        name = self.operator if self.operator == self.kind else f"{self.operator}.{self.kind}"
        return place + name + ("" if self.expert is None else f".{self.expert}")


EMBEDDING = Weight(None, "embedding", "embedding")
OUTPUT_NORM = Weight(None, "output", "norm")
LOGITS = Weight(None, "output", "logits")


def of_expert(layer: int, expert: int) -> tuple[Weight, Weight]:
    """Both matrices of a routed expert."""
    return Weight(layer, "moe", "expert up", expert), Weight(layer, "moe", "expert down", expert)


@dataclass(frozen=True)
class Sizes:
    """The shape of a pre-norm, decoder-only Transformer without biases, dense or with experts.

    Keys and values have ``kv_heads``, each for an equal group of the ``heads`` of width ``head``. A ``gated`` FFN's first product
    gives twice ``ffn_hidden`` columns: gates and values. Norms have a gain and a shift, or are ``rms`` norms with a gain alone.
    ``tied``: the output layer shares the embedding's weights. Layers that are true in ``moe`` have, in place of an FFN,
    ``experts`` with ``expert_hidden`` inner elements, of which a gate chooses ``top_k`` for each token, and beside them a part
    with ``hidden_beside`` inner elements that every token passes.
    """

    layers: int
    heads: int
    kv_heads: int
    head: int
    hidden: int
    ffn_hidden: int
    vocabulary: int
    gated: bool = False
    rms: bool = False
    tied: bool = True
    experts: int = 0
    expert_hidden: int = 0
    top_k: int = 1
    hidden_beside: int = 0
    moe: tuple[bool, ...] = ()

    def has_experts(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return bool(self.moe) and self.moe[layer]

    @property
    def group(self) -> int:
        """Heads that share keys and values."""
        return self.heads // self.kv_heads

    @property
    def table(self) -> Weight:
        """The output layer's weights."""
        return EMBEDDING if self.tied else LOGITS

    def weights(self) -> Iterator[Weight]:
        """All weights."""
        yield EMBEDDING
        for layer in range(self.layers):
            yield from self.of_layer(layer)
        yield OUTPUT_NORM
        if not self.tied:
            yield self.table

    def of_layer(self, layer: int) -> Iterator[Weight]:
        """The weights of a layer, in the order of their operations."""
        yield Weight(layer, "attention", "norm")
        yield Weight(layer, "attention", "qkv")
        yield Weight(layer, "attention", "out")
        if not self.has_experts(layer):
            yield Weight(layer, "ffn", "norm")
            yield Weight(layer, "ffn", "up")
            yield Weight(layer, "ffn", "down")
            return
        yield Weight(layer, "moe", "norm")
        yield Weight(layer, "moe", "gate")
        if self.hidden_beside:
            yield Weight(layer, "shared experts", "up")
            yield Weight(layer, "shared experts", "down")
        for expert in range(self.experts):
            yield from of_expert(layer, expert)

    @cached_property
    def numbers(self) -> Mapping[Weight, int]:
        """The number of every weight."""
        return {weight: number for number, weight in enumerate(self.weights())}

    def shape(self, weight: Weight, parts: int = 1) -> tuple[int, ...]:
        """The shape of a whole weight, with a dimension for everything that is cut by itself.

        A head's group stands with its keys and values: so cut, attention needs no other rank. The vocabulary is padded to a
        multiple of ``parts``.
        """
        hidden, inner = self.hidden, self.hidden_beside if weight.operator == "shared experts" else self.ffn_hidden
        words = -(-self.vocabulary // parts) * parts
        shapes: dict[WeightKind, tuple[int, ...]] = {
            "embedding": (words, hidden),
            "logits": (words, hidden),
            "qkv": (hidden, self.kv_heads, self.group + 2, self.head),
            "out": (self.heads, self.head, hidden),
            "up": (hidden, 2 if self.gated else 1, inner),
            "down": (inner, hidden),
            "norm": (1 if self.rms else 2, hidden),
            "gate": (hidden, self.experts),
            "expert up": (hidden, 2 if self.gated else 1, self.expert_hidden),
            "expert down": (self.expert_hidden, hidden),
        }
        return shapes[weight.kind]


@dataclass(frozen=True)
class Place:
    """Where a rank stands in the mesh: its number along each axis, of how many; axes that are not named have one rank.

    Axes are ``tp``, or ``row`` and ``col`` of a square grid in its place, ``cp``, ``pp`` and those of data parallelism.
    ``sequence_parallel``: norms and residuals are cut over ``tp`` as well, by tokens. ``ring`` are the ranks along ``cp`` in the
    order in which shifts pass them; none: by number. Experts are dealt to the ranks along ``experts_over``: over ``ep``, each a
    part of every expert under ``tp``; or over both, whole; or over groups of ``tp``, each a part in such a group. An axis that is
    ``divided`` is the one of its parts, outermost first.
    """

    number: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    sequence_parallel: bool = False
    ring: tuple[int, ...] = ()
    experts_over: tuple[str, ...] = ("ep",)
    divided: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def in_mesh(cls, setting: Setting, coordinate: Sequence[int], ring: tuple[int, ...] = ()) -> Place:
        """A rank's place in a setting's mesh."""
        mesh = setting.mesh
        return cls(
            dict(zip(mesh.axes, (int(at) for at in coordinate), strict=True)),
            dict(zip(mesh.axes, mesh.shape, strict=True)),
            setting.plan.sequence_parallel,
            ring,
            setting.expert_axes,
            dict(mesh.divided),
        )

    def me(self, axis: str) -> int:
        """Number of this rank along an axis."""
        if axis not in self.divided:
            return self.number.get(axis, 0)
        found = 0
        for part in self.divided[axis]:
            found = found * self.of(part) + self.me(part)
        return found

    def of(self, axis: str) -> int:
        """Ranks along an axis."""
        return prod(self.ranks.get(part, 1) for part in self.divided.get(axis, (axis,)))

    @cached_property
    def context(self) -> str:
        """The axis that sequences are cut over; the first of them where none is."""
        return next((axis for axis in CONTEXT if self.of(axis) > 1), CONTEXT[0])

    @cached_property
    def grid(self) -> int:
        """Rows, and columns, of the grid of two-dimensional tensor parallelism; 1 where there is none."""
        return self.of("row")

    @cached_property
    def width(self) -> int:
        """Ranks that share the vocabulary: those along ``tp``, or a side of the grid."""
        return self.of("tp") * self.grid

    @cached_property
    def by_tokens(self) -> int:
        """Into how many parts tokens of norms and residuals are cut by sequence parallelism."""
        return self.of("tp") if self.sequence_parallel else 1

    @cached_property
    def routes_over(self) -> str | None:
        """The axis of tensor parallelism whose ranks route tokens of their own, since experts are dealt over it."""
        return next((axis for axis in ("tp", "tep") if axis in self.experts_over), None)

    @cached_property
    def expert_cut(self) -> str | None:
        """The axis of tensor parallelism along which each expert is cut, whose ranks route the same tokens."""
        return {"tp": None, "tep": "etp", None: "tp"}[self.routes_over]

    @property
    def routes(self) -> bool:
        """Whether this rank, of all that route the same tokens, is the first one."""
        return self.expert_cut is None or not self.me(self.expert_cut)

    @cached_property
    def expert_ranks(self) -> int:
        """Ranks that experts are dealt to."""
        return prod(self.of(axis) for axis in self.experts_over)

    @cached_property
    def expert_rank(self) -> int:
        """The number of this rank among them, in the order of the mesh's axes."""
        found = 0
        for axis in self.ranks:
            if axis in self.experts_over:
                found = found * self.of(axis) + self.me(axis)
        return found

    def local_experts(self, experts: int) -> range:
        """The experts of this rank, of so many in a layer."""
        each = experts // self.expert_ranks
        return range(self.expert_rank * each, (self.expert_rank + 1) * each)

    def part(self, size: int, axis: str) -> slice:
        """The part of ``size`` things that is this rank's, where they are cut over an axis."""
        each = size // self.of(axis)
        return slice(self.me(axis) * each, (self.me(axis) + 1) * each)


CUTS: dict[WeightKind, dict[int, str]] = {
    "embedding": {0: "tp"},
    "logits": {0: "tp"},
    "qkv": {1: "tp"},
    "out": {0: "tp"},
    "up": {2: "tp"},
    "down": {0: "tp"},
    "norm": {},
    "gate": {},
    "expert up": {2: "tp"},
    "expert down": {0: "tp"},
}
"""Which dimension of a weight is cut over which axis: columns first, then rows (Megatron, Shoeybi et al. 2019)."""

GRID_CUTS: dict[WeightKind, dict[int, str]] = {
    "embedding": {0: "row", 1: "col"},
    "logits": {0: "row", 1: "col"},
    "qkv": {0: "row", 1: "col"},
    "out": {0: "row", 2: "col"},
    "up": {0: "row", 2: "col"},
    "down": {0: "row", 1: "col"},
    "norm": {1: "col"},
    "gate": {},
    "expert up": {},
    "expert down": {},
}
"""The same for a square grid: blocks of every matrix (SUMMA; Optimus, Xu et al. 2021)."""


def cut(whole: Array, weight: Weight, sizes: Sizes, place: Place) -> Array:
    """A rank's part of a whole weight, as the matrix that its products take; words that pad the vocabulary are zeros."""
    shape = sizes.shape(weight, place.width)
    missing = shape[0] - sizes.shape(weight)[0]
    if missing:
        whole = np.concatenate([whole, np.zeros((missing, *whole.shape[1:]), dtype=whole.dtype)])
    part = whole.reshape(shape)[_slices(weight, sizes, place)]
    return np.ascontiguousarray(part).reshape(local_shape(weight, sizes, place))


def local_shape(weight: Weight, sizes: Sizes, place: Place) -> tuple[int, int]:
    """Shape of a rank's part as a matrix."""
    shape = list(sizes.shape(weight, place.width))
    for dimension, axis in _cuts(weight, place).items():
        shape[dimension] //= place.of(axis)
    inputs = 2 if weight.kind == "out" else 1  # dimensions that a product adds up over
    return prod(shape[:inputs]), prod(shape[inputs:])


def join(parts: list[tuple[Place, Array]], weight: Weight, sizes: Sizes) -> Array:
    """The whole weight from the parts of ranks; of a part that several ranks hold, the last one counts."""
    whole = np.empty(sizes.shape(weight, parts[0][0].width), dtype=parts[0][1].dtype)
    for place, part in parts:
        whole[_slices(weight, sizes, place)] = part.reshape(whole[_slices(weight, sizes, place)].shape)
    rows, columns = local_shape(weight, sizes, Place())
    return whole.reshape(-1, columns)[:rows]


def initial(weight: Weight, sizes: Sizes, seed: int) -> Array:
    """A whole weight before training, as a matrix in double precision: any rank can make any, and cut its part out of it.

    Matrices have a standard deviation of one over the root of their inputs; norms have a gain near 1 and a shift near 0.
    """
    random = np.random.default_rng([seed, 9, sizes.numbers[weight]])
    rows, columns = local_shape(weight, sizes, Place())
    values: Array = random.standard_normal((rows, columns))
    if weight.kind == "norm":
        values = np.array([[1.0], [0.0]])[:rows] + 0.02 * values
    else:
        values *= (columns if weight.kind in ("embedding", "logits") else rows) ** -0.5
    return values


def cut_over(weight: Weight, place: Place) -> tuple[str, ...]:
    """The axes that a weight is cut over."""
    return tuple(_cuts(weight, place).values())


def _cuts(weight: Weight, place: Place) -> dict[int, str]:
    cuts = (GRID_CUTS if place.grid > 1 else CUTS)[weight.kind]
    if weight.expert is None or place.expert_cut == "tp":
        return cuts
    return {} if place.expert_cut is None else dict.fromkeys(cuts, place.expert_cut)


def _slices(weight: Weight, sizes: Sizes, place: Place) -> tuple[slice, ...]:
    shape, cuts = sizes.shape(weight, place.width), _cuts(weight, place)
    return tuple(place.part(size, cuts[at]) if at in cuts else slice(None) for at, size in enumerate(shape))
