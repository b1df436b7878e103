"""Whole tensors, from what every rank tells of its own: a rank of any mesh, in any formats, takes its parts of them.

A rank tells, of each tensor that it updates, the elements' places in the whole tensor, their weights, master copies and
optimizer's state. What several ranks have is told by one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ..training.optimizer_rounds import HeldTensor
from ..training.transformer.training import ModelTraining
from ..training.transformer.weights.holdings import Flat, ModelHoldings, ShardPiece
from ..training.transformer.weights.tensors import index_of, tensors_of

Array = NDArray[Any]


def shard_of(training: ModelTraining) -> dict[str, Array]:
    """Names and arrays of what this rank alone has to tell."""
    return {key: values.astype(np.float32) if _unknown(values) else values for key, values in _arrays(training)}


def _unknown(values: Array) -> bool:
    """Whether NumPy itself has no such numbers, and files of its own would not say what they are."""
    return values.dtype.kind == "V"


def _arrays(training: ModelTraining) -> Iterator[tuple[str, Array]]:
    holdings = training.holdings
    for flat, each in holdings.tensors:
        if len(each.index) and _writes(holdings, flat):
            name = str(each.name)
            yield f"{name}/index", _runs(each.index)
            yield f"{name}/weights", flat.share[each.here]
            if flat.master is not None:
                yield f"{name}/master", flat.master[each.here]
            for slot, values in each.state.items():
                yield f"{name}/state.{slot}", values


def _writes(holdings: ModelHoldings, flat: Flat) -> bool:
    """Whether this rank, of all that have the same, tells a vector."""
    shards, place = flat.shards, holdings.place
    return not any(place.me(axis) for axis in shards.replicas if axis not in shards.axes)


def _runs(index: Array) -> Array:
    """Places as first places and lengths of their runs, ``[runs, 2]``."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    starts = np.concatenate([[0], breaks])
    return np.stack([index[starts], np.diff(np.concatenate([starts, [len(index)]]))], axis=1)


def _places(runs: Array) -> Array:
    """And back."""
    return np.concatenate([np.arange(start, start + count) for start, count in runs])


class WholeTensors:
    """The tensors of all ``shards``; raises :class:`InputError`, which begins with ``source``, where something is missing.

    Formats may be others than those that they were told in: weights then come from the master copies, where there are any, and
    are rounded to what a rank keeps.
    """

    def __init__(self, source: str, shards: Sequence[dict[str, Array]]) -> None:
        self.source = source
        self._parts: dict[str, list[tuple[Array, Array]]] = {}
        for shard in shards:
            for key, values in shard.items():
                tensor, _, what = key.rpartition("/")
                if what != "index":
                    self._parts.setdefault(key, []).append((_places(shard[f"{tensor}/index"]), values))

    def restore(self, training: ModelTraining, updates: int) -> None:
        """Give a rank the weights, copies and state that it holds, after so many updates."""
        holdings = training.holdings
        holdings.updates = updates
        for flat in holdings.flats:
            for piece in flat.pieces:
                self._weights(holdings, flat, piece)
        for flat, each in holdings.tensors:
            self._state(flat, each)

    def _found(self, key: str) -> list[tuple[Array, Array]]:
        if key not in self._parts:
            raise InputError(f"{self.source}: has no {key}; optimizer and formats must be those of the run")
        return self._parts[key]

    def _whole(self, key: str, size: int) -> Array:
        """A whole tensor, from the parts in all shards."""
        parts = self._found(key)
        whole, known = np.zeros(size, dtype=parts[0][1].dtype), np.zeros(size, dtype=bool)
        for places, values in parts:
            whole[places], known[places] = values, True
        if not known.all():
            raise InputError(f"{self.source}: lacks {np.count_nonzero(~known):,} of {size:,} numbers of {key}")
        return whole

    def _exact(self, name: str, size: int) -> Array:
        """A tensor's weights as they are updated: the master copies where there are any."""
        copies = f"{name}/master"
        return self._whole(copies if copies in self._parts else f"{name}/weights", size)

    def _of_share(self, key: str, index: Array) -> Array:
        """What an optimizer keeps for a rank's share as a whole: only ranks with the same share can take it over."""
        for places, values in self._found(key):
            if np.array_equal(places, index):
                return values
        raise InputError(f"{self.source}: {key} is kept by share, and shares were others: needs the mesh of the run")

    def _weights(self, holdings: ModelHoldings, flat: Flat, piece: ShardPiece) -> None:
        """Weights of all that the rank keeps."""
        for of in tensors_of(piece.weight, holdings.sizes):
            index = index_of(piece.weight, of, holdings.sizes, holdings.place)
            values = self._exact(of.name_in(piece.weight), of.tensor.size)[index]
            start = piece.start + (of.row or 0) * piece.shape[1]
            if flat.weights is not None:
                flat.weights[start : start + len(index)] = values
            low, high = flat.inside(start, start + len(index), flat.shards.mine)
            if low < high:
                flat.share[start + low - flat.first : start + high - flat.first] = values[low:high]

    def _state(self, flat: Flat, each: HeldTensor) -> None:
        if flat.master is not None and len(each.index):
            flat.master[each.here] = self._exact(each.name, each.tensor.size)[each.index]
        if not len(each.index):
            return
        for slot, values in each.state.items():
            key = f"{each.name}/state.{slot}"
            if slot in each.rule.kept(each.tensor):
                values[...] = self._found(key)[0][1]
            elif len(values) == len(each.index):
                values[...] = self._whole(key, each.tensor.size)[each.index]
            else:
                values[...] = self._of_share(key, each.index)
