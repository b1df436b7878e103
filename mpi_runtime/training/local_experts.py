"""The experts of a layer on a rank: two matrices each, with their gradients; or a stand-in that can be checked as well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.int64]


def stand_in(expert: Index) -> Array:
    """What an expert multiplies tokens by where nothing is computed: another power of two for each of eight."""
    return np.ldexp(1.0, np.asarray(expert) % 8 - 4)


def feed_forward(tokens: Array, up: Array, down: Array) -> Array:
    """An expert's FFN, relu(x · up) · down: what the tests and checks hold the runtime to."""
    result: Array = np.maximum(tokens @ up, 0) @ down
    return result


def feed_forward_gradient(tokens: Array, gradient: Array, up: Array, down: Array) -> Array:
    """The gradient of an expert's tokens, from that of its answers."""
    result: Array = ((gradient @ down.T) * (tokens @ up > 0)) @ up.T
    return result


@dataclass
class LocalExperts:
    """Computes on the tokens that arrived at a rank for its experts of one layer.

    ``up[local, hidden, ffn]`` and ``down[local, ffn, hidden]`` are weights, ``up_gradient`` and ``down_gradient`` are added to.
    ``rows[e]`` numbers the arrived tokens of local expert e. The methods are the operations of the Schedule, in their order.
    """

    up: Array
    down: Array
    up_gradient: Array
    down_gradient: Array
    rows: list[Index]
    arrived: Array
    _inner: list[Array] = field(default_factory=list)
    _gradient: Array | None = None
    _inner_gradient: list[Array] = field(default_factory=list)

    def up_product(self) -> None:
        """Inner activations of each expert's tokens."""
        self._inner = [self.arrived[rows] @ weights for rows, weights in zip(self.rows, self.up, strict=True)]

    def activate(self) -> None:
        """The rectifier."""
        for inner in self._inner:
            np.maximum(inner, 0, out=inner)

    def down_product(self) -> Array:
        """The experts' answers, in the order in which tokens arrived."""
        answers = np.empty_like(self.arrived)
        for rows, inner, weights in zip(self.rows, self._inner, self.down, strict=True):
            answers[rows] = inner @ weights
        return answers

    def take_gradient(self, gradient: Array) -> None:
        """The gradient of the answers has arrived."""
        self._gradient = gradient

    def down_dgrad(self) -> None:
        """Gradient of the inner activations."""
        pairs = zip(self.rows, self.down, strict=True)
        self._inner_gradient = [self._answers(rows) @ weights.T for rows, weights in pairs]

    def down_wgrad(self) -> None:
        """Gradient of the second matrix."""
        for rows, inner, total in zip(self.rows, self._inner, self.down_gradient, strict=True):
            total += inner.T @ self._answers(rows)

    def activate_gradient(self) -> None:
        """Through the rectifier."""
        for gradient, inner in zip(self._inner_gradient, self._inner, strict=True):
            gradient[inner <= 0] = 0

    def up_dgrad(self) -> Array:
        """Gradient of the tokens, in the order in which they arrived."""
        gradient = np.empty_like(self.arrived)
        for rows, inner, weights in zip(self.rows, self._inner_gradient, self.up, strict=True):
            gradient[rows] = inner @ weights.T
        return gradient

    def up_wgrad(self) -> None:
        """Gradient of the first matrix."""
        for rows, inner, total in zip(self.rows, self._inner_gradient, self.up_gradient, strict=True):
            total += self.arrived[rows].T @ inner

    def _answers(self, rows: Index) -> Array:
        assert self._gradient is not None, "no gradient has arrived"
        gradient: Array = self._gradient[rows]
        return gradient
