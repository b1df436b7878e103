"""What a rank holds of a model: flat vectors of weights and gradients, by layer and format, and what it updates of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from .....workloads.lowering.data_parallel.held_tensors import together
from .....workloads.lowering.data_parallel.sharding import (
    Holding,
    held,
    held_beside_layers,
    held_of_layer,
    layers_of,
)
from .....workloads.mesh.axes import TENSOR
from .....workloads.model.number_types import TYPES
from .....workloads.model.precision import PARTS, Formats, Part
from .....workloads.optimizers import TensorShare
from .....workloads.plan.setting import Setting
from .....workloads.schedule.operation import Role, Task
from .....workloads.schedule.work import Exchange
from ...optimizer_rounds import HeldTensor
from ..messages import Array, Message
from .shards import EMBEDDING, OUTPUT_NORM, Place, Sizes, Weight, cut, cut_over, initial, local_shape
from .tensors import Index, WeightTensor, along, index_of, part_of, tensors_of


class ShardPiece(NamedTuple):
    """A weight's place in its vector."""

    weight: Weight
    start: int
    shape: tuple[int, int]

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Shards:
    """How vectors are spread: over ``count`` ranks along ``axes``, of which this one has number ``mine``.

    ``sharded`` says that a rank updates its shard alone, ``weights`` that it keeps no more of the weights. ``rest`` are the
    axes over which a shard's gradients are still to be added up, ``replicas`` all along which ranks have the same.
    """

    sharded: bool
    weights: bool
    axes: tuple[str, ...]
    count: int
    mine: int
    rest: tuple[str, ...]
    replicas: tuple[str, ...]

    @classmethod
    def of(cls, setting: Setting, place: Place, holding: Holding) -> Shards:
        """Of a part of the model, as the plan says."""
        mesh, sharding = setting.mesh, setting.plan.sharding
        replicas, axes = holding.replicas, holding.shards
        if not sharding.shards_state or mesh.size(*axes) == 1:
            return cls(False, False, (), 1, 0, replicas, replicas)
        mine = _number(axes, place)
        rest = tuple(axis for axis in replicas if axis not in axes and mesh.size(axis) > 1)
        return cls(True, sharding.shards_weights, axes, mesh.size(*axes), mine, rest, replicas)

    def number(self, place: Place) -> int:
        """Which shard a rank at this place has."""
        return _number(self.axes, place)


def _number(axes: tuple[str, ...], place: Place) -> int:
    """The number of a place along axes together."""
    found = 0
    for axis in axes:
        found = found * place.of(axis) + place.me(axis)
    return found


class Flat:
    """Weights of one format, on the same ranks, of a layer (or of embedding and output): one vector, padded to equal shards.

    Where weights are not kept whole (ZeRO 3), :attr:`weights` is None until :meth:`take_weights`, and after :meth:`release`.
    Gradients are added up in :attr:`gradients`; what has been reduced of them, for the update, is in :attr:`reduced`.
    """

    def __init__(
        self, layer: int | None, pieces: list[ShardPiece], whole: Array, formats: Formats, shards: Shards
    ) -> None:
        self.layer, self.pieces, self.formats, self.shards = layer, pieces, formats, shards
        self.width = -(-len(whole) // shards.count)  # of a shard
        total = self.width * shards.count
        vector = np.zeros(total, dtype=TYPES[formats.weight])
        vector[: len(whole)] = whole
        self.first = shards.mine * self.width
        mine = slice(self.first, self.first + self.width)
        self.weights: Array | None = vector
        self.share = vector[mine].copy() if shards.weights else vector[mine]
        self.gradients = np.zeros(total, dtype=TYPES[formats.gradient])
        self.reduced = np.zeros_like(self.gradients[mine]) if shards.sharded else self.gradients
        self.master = self.share.astype(TYPES[formats.master]) if formats.master else None
        self.release()

    def start_step(self) -> None:
        """Gradients are zero again."""
        self.gradients[...] = 0
        self.reduced[...] = 0

    def release(self) -> None:
        """Weights that came from other shards are not kept."""
        if self.shards.weights:
            self.weights = None

    def take_weights(self, shares: Array) -> None:
        """Weights of all shards, ``[shards, width]``."""
        if self.weights is None:
            self.weights = shares.reshape(-1).astype(self.share.dtype)
        else:
            self.weights[...] = shares.reshape(-1)

    def add_reduced(self, shard: Array) -> None:
        """What a reduction has brought; the gradients that went into it are gone."""
        self.reduced += shard
        self.gradients[...] = 0

    def spans(self, part: Part) -> Iterator[slice]:
        """Where the weights of a part of the model lie in this rank's share."""
        for each in self.pieces:
            low, high = max(each.start - self.first, 0), min(each.stop - self.first, self.width)
            if part_of(each.weight) == part and low < high:
                yield slice(low, high)

    def inside(self, start: int, stop: int, number: int) -> tuple[int, int]:
        """What the share of a shard's ``number`` has of a run of the vector, from where to where in the run."""
        first = number * self.width
        low, high = max(start, first), min(stop, first + self.width)
        return (low - start, high - start) if low < high else (0, 0)

    def ready(self, each: HeldTensor, scale: float, step: int) -> TensorShare:
        """What an update of a tensor works on, from gradients that are ``scale`` times what they should be."""
        return each.share(self.share, self.master, self.reduced, scale, step)


def _pieces(weights: list[Weight], sizes: Sizes, place: Place) -> Iterator[ShardPiece]:
    start = 0
    for weight in weights:
        piece = ShardPiece(weight, start, local_shape(weight, sizes, place))
        start = piece.stop
        yield piece


class View(Mapping[Weight, Array]):
    """Weights or gradients, as matrices: gradients as they are kept, weights in the format that they are computed in."""

    def __init__(self, flats: list[Flat], values: str) -> None:
        self.values_of = values
        self._found = {piece.weight: (flat, piece) for flat in flats for piece in flat.pieces}

    def __getitem__(self, weight: Weight) -> Array:
        """The matrix of a weight."""
        flat, piece = self._found[weight]
        vector: Array | None = getattr(flat, self.values_of)
        assert vector is not None, f"{weight} has not been fetched"
        matrix = vector[piece.start : piece.stop].reshape(piece.shape)
        if self.values_of == "weights" and matrix.itemsize < 4:
            return matrix.astype(np.float32)  # BLAS has no halves
        return matrix

    def __iter__(self) -> Iterator[Weight]:
        """All that there are."""
        return iter(self._found)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._found)


class ModelHoldings:
    """All that a rank holds: layers of its pipeline stage, embedding and output where its stage has them.

    :meth:`message` gives the rank's side of exchanges of gradients and weights, which find their vectors by format, and by layer
    where they are of one.
    """

    def __init__(self, setting: Setting, sizes: Sizes, place: Place, formats: Mapping[Part, Formats]) -> None:
        self.updates, seed = 0, setting.plan.seed
        self._scale, self._usable = 1.0, True
        stage, last = place.me("pp"), place.of("pp") - 1
        mine = place.local_experts(sizes.experts)
        shards = {each.part: Shards.of(setting, place, each) for each in held(setting)}
        weights: dict[int | None, list[Weight]] = {
            layer: [each for each in sizes.of_layer(layer) if each.expert is None or each.expert in mine]
            for layer in layers_of(setting, stage)
        }
        weights[None] = [EMBEDDING] if stage == 0 or (stage == last and sizes.tied) else []
        if stage == last:
            weights[None] += [OUTPUT_NORM] if sizes.tied else [OUTPUT_NORM, sizes.table]
        self.flats: list[Flat] = []
        for layer, every in weights.items():
            kinds: dict[tuple[Formats, Shards], list[Weight]] = {}
            for weight in every:
                kinds.setdefault((formats[part_of(weight)], shards[part_of(weight)]), []).append(weight)
            for (of_kind, over), these in kinds.items():
                made = [cut(initial(weight, sizes, seed), weight, sizes, place).reshape(-1) for weight in these]
                pieces = list(_pieces(these, sizes, place))
                self.flats.append(Flat(layer, pieces, np.concatenate(made), of_kind, over))
        self.setting, self.sizes, self.place, self._formats = setting, sizes, place, formats
        self._axes = {each.part: together(setting, each) for each in held(setting)}
        self.tensors = [(flat, each) for flat in self.flats for each in self._tensors(flat)]
        self.weights, self.gradients = View(self.flats, "weights"), View(self.flats, "gradients")
        self._copies = {
            each.name_in(piece.weight): self._ranks_with(flat, piece.weight)
            for flat in self.flats
            for piece in flat.pieces
            for each in tensors_of(piece.weight, sizes)
        }
        self._pending: dict[Flat, Array] = {}  # shards whose gradients are still to be added up over other axes
        self._told: Counter[tuple[object, ...]] = (
            Counter()
        )  # exchanges of this step that nothing tells apart but their order

    def start_step(self) -> None:
        """Gradients are zero again."""
        self._told.clear()
        for each in self.flats:
            each.start_step()

    def begin_update(self, scale: float, usable: Callable[[Callable[[], bool]], bool]) -> None:
        """Gradients are complete, ``scale`` times what they should be; ``usable`` says whether there is an update."""
        self._scale = scale
        self._usable = usable(lambda: all(bool(np.isfinite(flat.reduced).all()) for flat in self.flats))
        self.updates += self._usable

    def ready(self, part: Part) -> Iterator[tuple[HeldTensor, TensorShare]]:
        """The tensors of a part of which this rank's shares have something, or others' do, ready for an update.

        What is left of others' shares is out of date.
        """
        for flat, each in self.tensors:
            if each.part == part and self._usable:
                yield each, flat.ready(each, self._scale, self.updates)
            if each.part == part:
                flat.release()

    def _tensors(self, flat: Flat) -> Iterator[HeldTensor]:
        """What this rank's share of a vector has of each tensor in it."""
        optimizer = self.setting.plan.optimizing
        for piece in flat.pieces:
            part, columns = part_of(piece.weight), piece.shape[1]
            for each in tensors_of(piece.weight, self.sizes):
                start = piece.start + (each.row or 0) * columns
                index = self._index(flat, piece, each, start, self.place, flat.shards.mine)
                first = max(start - flat.first, 0)
                others = partial(self._others, flat, piece, each, start)
                rule = optimizer.rule(part, each.tensor)
                found = HeldTensor(part, each.tensor, rule, slice(first, first + len(index)), index, others)
                found.name = each.name_in(piece.weight)
                found.start(flat.formats)
                yield found

    def _index(self, flat: Flat, piece: ShardPiece, of: WeightTensor, start: int, place: Place, number: int) -> Index:
        """Where the elements that a shard has of a tensor lie in the whole one."""
        every = index_of(piece.weight, of, self.sizes, place)
        low, high = flat.inside(start, start + len(every), number)
        return every[low:high]

    def _others(self, flat: Flat, piece: ShardPiece, of: WeightTensor, start: int) -> list[Index]:
        """The same for all ranks with parts of the tensor, in the order of the axes along which they are."""
        return [
            self._index(flat, piece, of, start, place, flat.shards.number(place))
            for place in along(self.place, self._axes[part_of(piece.weight)])
        ]

    def squares(self) -> float:
        """Of all gradients, the part of this rank: what several ranks have, each counts its part of."""
        total = 0.0
        for flat, each in self.tensors:
            values = flat.reduced[each.here].astype(np.float64) / self._scale
            total += float(values @ values) / self._copies[each.name]
        return total

    def _ranks_with(self, flat: Flat, weight: Weight) -> int:
        """How many ranks have the same share of a weight."""
        mesh, shards = self.setting.mesh, flat.shards
        spread = {*mesh.parts_of(cut_over(weight, self.place))}
        if weight.expert is not None:
            spread |= {*self.place.experts_over}
        uncut = [axis for axis in mesh.axes if axis in TENSOR and axis not in spread]
        twice = 2 if weight == EMBEDDING and self.sizes.tied and mesh.size("pp") > 1 else 1
        return twice * mesh.size(*uncut) * mesh.size(*shards.replicas) // shards.count

    def release(self, layer: int) -> None:
        """A pass is through a layer."""
        for each in self.flats:
            if each.layer == layer:
                each.release()

    def message(self, task: Task, exchange: Exchange) -> Message:
        """The rank's side of an exchange of gradients or weights: of a layer, of both ends, or of all that it holds."""
        if task.role is Role.GRADIENT_SUM_OVER_TOKENS:
            return self._add_up(exchange, [part for part in PARTS if part == task.part])
        weights = exchange.operation == "all-gather"
        replicas = self._replicas(task, exchange)
        flats = [
            each
            for each in self.flats
            if exchange.element == (each.formats.weight if weights else each.formats.gradient)
            and each.shards.replicas == replicas
            and (each.layer == task.layer if task.layer is not None or task.part == "ends" else True)
        ]
        if weights:
            return self._gather(exchange, flats)
        if exchange.operation == "reduce-scatter":
            return self._reduce_scatter(exchange, flats)
        return self._all_reduce(exchange, flats)

    def _replicas(self, task: Task, exchange: Exchange) -> tuple[str, ...]:
        """The replicas of the vector that an exchange is about.

        Experts and all else have different ones; where they are sent over the same axes, one exchange follows the other in the
        order in which the lowering goes through the parts of the model.
        """
        if task.layer is not None:
            holdings = held_of_layer(self.setting, task.layer)
        else:
            holdings = held_beside_layers(self.setting) if task.part == "ends" else held(self.setting)
        sharded = self.setting.plan.sharding.shards_state
        found: list[tuple[str, ...]] = []
        for each in holdings:
            rest = tuple(axis for axis in each.replicas if axis not in each.shards)
            last = rest if sharded else each.replicas
            axes = last if exchange.operation == "all-reduce" else each.shards
            formats = self._formats[each.part]
            element = formats.weight if exchange.operation == "all-gather" else formats.gradient
            if axes == exchange.axes and element == exchange.element and each.replicas not in found:
                found.append(each.replicas)
        key = (task, exchange.operation, exchange.axes, exchange.element)
        number = self._told[key]
        self._told[key] += 1
        return found[number % len(found)]

    def _gather(self, exchange: Exchange, flats: list[Flat]) -> Message:
        def take(parts: Array) -> None:
            for flat, columns in _split(flats, parts):
                flat.take_weights(columns)

        return Message("all-gather", exchange.axes, _joined([each.share for each in flats]), take)

    def _reduce_scatter(self, exchange: Exchange, flats: list[Flat]) -> Message:
        def take(mine: Array) -> None:
            for flat, shard in _split(flats, mine):
                if flat.shards.rest:
                    self._pending[flat] = shard
                else:
                    flat.add_reduced(shard)

        ranks = self.setting.mesh.size(*exchange.axes)
        nothing = np.zeros((ranks, 0))  # of a stage that has no such weights
        payload = _joined([each.gradients.reshape(ranks, -1) for each in flats]) if flats else nothing
        return Message("reduce-scatter", exchange.axes, payload, take)

    def _all_reduce(self, exchange: Exchange, flats: list[Flat]) -> Message:
        def take(total: Array) -> None:
            for flat, values in _split(flats, total):
                if flat.shards.sharded:
                    flat.add_reduced(values)
                else:
                    flat.gradients[...] = values

        values = [self._pending.pop(each) if each.shards.sharded else each.gradients for each in flats]
        return Message("all-reduce", exchange.axes, _joined(values), take)

    def _add_up(self, exchange: Exchange, parts: list[Part]) -> Message:
        """Gradients of weights that other ranks have as well, but for other tokens, as those of norms."""
        places = [(each, here) for each in self.flats for part in parts for here in each.spans(part)]

        def take(total: Array) -> None:
            start = 0
            for flat, here in places:
                end = start + here.stop - here.start
                flat.reduced[here] = total[start:end]
                start = end

        return Message("all-reduce", exchange.axes, _joined([flat.reduced[here] for flat, here in places]), take)


def _joined(values: list[Array]) -> Array:
    """Vectors, or shards side by side, in one array."""
    return np.concatenate(values, axis=-1) if values else np.zeros(0)


def _split(flats: list[Flat], values: Array) -> Iterator[tuple[Flat, Array]]:
    """The parts of such an array that belong to each vector."""
    start = 0
    total = sum(each.width for each in flats)
    for each in flats:
        width = each.width * (values.shape[-1] // total)
        yield each, values[..., start : start + width]
        start += width
