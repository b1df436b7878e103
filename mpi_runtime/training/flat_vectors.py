"""What a rank holds of the model as flat vectors: weights, gradients, and the optimizer's state of its own share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.model.precision import Formats
from ..devices import TYPES

Array = NDArray[Any]

LEARNING_RATE, BETA_1, BETA_2 = 1e-3, 0.9, 0.999
EPSILON, EPSILON_OF_HALVES = 1e-8, 1e-4
"""Adam's usual settings (Kingma and Ba 2015); moments kept in half need a larger epsilon, since smaller ones vanish."""


@dataclass
class FlatVector:
    """The parameters that a rank shares with the same other ranks, in one format.

    It has segments of these ``sizes``, which are reduced by themselves, each padded to a multiple of ``cells``: every rank
    ends with one cell of each of them, ``home``, whose weights it updates. ``sharded`` is False where every rank updates
    everything.
    """

    name: str
    sizes: list[int]
    cells: int
    home: int
    sharded: bool
    formats: Formats
    weights: Array = field(init=False)
    gradients: Array = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.padded = [-(-size // self.cells) * self.cells for size in self.sizes]
        total = sum(self.padded)
        self.weights = np.zeros(total, dtype=TYPES[self.formats.weight])
        self.gradients = np.zeros(total, dtype=TYPES[self.formats.gradient])
        mine, moments = self.share, TYPES[self.formats.moments]
        self.first, self.second = np.zeros(mine, dtype=moments), np.zeros(mine, dtype=moments)
        self.master = np.zeros(mine, dtype=TYPES[self.formats.master]) if self.formats.master else None

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
        """Gradients are zero again, and Adam counts on."""
        self.gradients[...] = 0
        self.step += 1

    def adam(self, first: float, last: float, replicas: int) -> None:
        """Update the part of this rank's share between two fractions of it, with the mean gradient of all replicas."""
        low, high = round(first * self.share), round(last * self.share)
        start = 0
        for weights, gradients in zip(self.mine(self.weights), self.mine(self.gradients), strict=True):
            end = start + len(weights)
            here = slice(max(low, start), max(max(low, start), min(high, end)))
            inside = slice(here.start - start, here.stop - start)
            state = (self.first[here], self.second[here])
            exact = None if self.master is None else self.master[here]
            adam(weights[inside], gradients[inside], state, exact, self.step, replicas)
            start = end

    def bytes(self) -> int:
        """Bytes that it takes."""
        arrays = [self.weights, self.gradients, self.first, self.second, self.master]
        return sum(array.nbytes for array in arrays if array is not None)


def adam(
    weights: Array, gradients: Array, moments: tuple[Array, Array], master: Array | None, step: int, replicas: int
) -> None:
    """One step of Adam in place, on the mean of ``replicas`` summed gradients; computed in single precision or better."""
    first, second = moments
    mean = gradients.astype(np.promote_types(gradients.dtype, np.float32)) / replicas
    first[...] = BETA_1 * first + (1 - BETA_1) * mean
    second[...] = BETA_2 * second + (1 - BETA_2) * mean * mean
    rate = LEARNING_RATE * np.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    exact = weights if master is None else master
    epsilon = EPSILON_OF_HALVES if second.dtype == np.float16 else EPSILON
    exact[...] = exact - rate * first / (np.sqrt(second.astype(mean.dtype)) + epsilon)
    if master is not None:
        weights[...] = master
