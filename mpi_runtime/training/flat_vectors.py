"""What a rank holds of the model as flat vectors: weights, gradients, and the optimizer's state of its own share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.model.number_types import TYPES
from ...workloads.model.precision import Formats, Part
from ...workloads.model.tensors import Tensor
from ...workloads.optimizers import Adam, Optimizer, TensorShare
from .optimizer_rounds import HeldTensor, mean_of

Array = NDArray[Any]


class PlacedTensor(NamedTuple):
    """A tensor of a part of the model, and where it begins in a segment of a vector."""

    part: Part
    tensor: Tensor
    segment: int
    start: int


@dataclass
class FlatVector:
    """The parameters that a rank shares with the same other ranks, in one format.

    It has segments of these ``sizes``, which are reduced by themselves, each padded to a multiple of ``cells``: every rank
    ends with one cell of each of them, ``home``, whose weights it updates. ``sharded`` is False where every rank updates
    everything. ``homes`` are the cells of all ranks with parts of the same vector, in their order. ``placed`` are the tensors
    in it; where none are named, each segment is one vector.
    """

    name: str
    sizes: list[int]
    cells: int
    home: int
    sharded: bool
    formats: Formats
    optimizer: Optimizer = field(default_factory=Adam)
    homes: Sequence[int] = ()
    placed: list[PlacedTensor] = field(default_factory=list)
    weights: Array = field(init=False)
    gradients: Array = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.padded = [-(-size // self.cells) * self.cells for size in self.sizes]
        total = sum(self.padded)
        self.weights = np.zeros(total, dtype=TYPES[self.formats.weight])
        self.gradients = np.zeros(total, dtype=TYPES[self.formats.gradient])
        self.master = np.zeros(self.share, dtype=TYPES[self.formats.master]) if self.formats.master else None
        if not self.placed:
            self.placed = [PlacedTensor("expert", Tensor(1, size), number, 0) for number, size in enumerate(self.sizes)]
        self.tensors = [self._held(each) for each in self.placed]

    @property
    def share(self) -> int:
        """Parameters that this rank updates, padding included."""
        total = sum(self.padded)
        return total // self.cells if self.sharded else total

    def segment(self, values: Array, number: int) -> Array:
        """A segment of weights or gradients, as a view."""
        start = sum(self.padded[:number])
        return values[start : start + self.padded[number]]

    def cut(self, values: Array, number: int) -> Array:
        """The same cut into cells, ``[cells, …]``."""
        return self.segment(values, number).reshape(self.cells, -1)

    def mine(self, values: Array) -> Iterator[Array]:
        """The rank's cell of each segment, or the whole segments where it updates all."""
        for number in range(len(self.sizes)):
            yield self.cut(values, number)[self.home] if self.sharded else self.segment(values, number)

    def gathered(self) -> Array:
        """The weights of all segments in one array of cells, for one all-gather; :meth:`spread` puts it back."""
        parts = [self.cut(self.weights, number) for number in range(len(self.sizes))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def spread(self, cells: Array) -> None:
        """Take weights from such an array."""
        if len(self.sizes) == 1:
            return  # it was a view
        start = 0
        for number in range(len(self.sizes)):
            part = self.cut(self.weights, number)
            part[...] = cells[:, start : start + part.shape[1]]
            start += part.shape[1]

    def remember(self) -> None:
        """Take the weights as they are for the master copy."""
        if self.master is not None:
            self.master[...] = np.concatenate(list(self.mine(self.weights)))

    def start_step(self) -> None:
        """Gradients are zero again, and steps are counted on."""
        self.gradients[...] = 0
        self.step += 1

    def ready(self, part: Part | None, replicas: int) -> Iterator[tuple[HeldTensor, TensorShare]]:
        """The tensors of a part (None: of all), ready for an update with the mean gradient of all replicas."""
        weights, gradients = list(self.mine(self.weights)), list(self.mine(self.gradients))
        starts = np.cumsum([0, *(len(each) for each in weights)])
        for place, each in zip(self.placed, self.tensors, strict=True):
            if part in (None, each.part):
                here, start = each.here, int(starts[place.segment])
                master = None if self.master is None else self.master[start + here.start : start + here.stop]
                mean = mean_of(gradients[place.segment][here], replicas)
                yield (
                    each,
                    TensorShare(
                        each.tensor, each.index, weights[place.segment][here], master, mean, each.state, self.step
                    ),
                )

    def _held(self, place: PlacedTensor) -> HeldTensor:
        """What this rank updates of a tensor."""
        index = self._index(place, self.home)
        first = place.start + int(index[0]) if len(index) else 0
        if self.sharded and len(index):
            first -= self.home * (self.padded[place.segment] // self.cells)
        rule = self.optimizer.rule(place.part, place.tensor)
        here = slice(first, first + len(index))
        found = HeldTensor(place.part, place.tensor, rule, here, index, partial(self._others, place))
        found.start(self.formats)
        return found

    def _index(self, place: PlacedTensor, home: int) -> NDArray[np.int64]:
        """The elements of a tensor that lie in a cell of its segment; all, where every rank updates everything."""
        if not self.sharded:
            return np.arange(place.tensor.size)
        width = self.padded[place.segment] // self.cells
        low, high = max(home * width - place.start, 0), min((home + 1) * width - place.start, place.tensor.size)
        return np.arange(low, max(low, high))

    def _others(self, place: PlacedTensor) -> list[NDArray[np.int64]]:
        return [self._index(place, int(home)) for home in self.homes]

    def bytes(self) -> int:
        """Bytes that it takes."""
        arrays = [
            self.weights,
            self.gradients,
            self.master,
            *(array for each in self.tensors for array in each.state.values()),
        ]
        return sum(array.nbytes for array in arrays if array is not None)
