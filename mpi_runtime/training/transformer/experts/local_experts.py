"""The experts of a layer on a rank: products with their matrices, forward and backward, on the tokens that have arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functions as f
from ..rounding import Rounded, exact

Array = NDArray[Any]
Index = NDArray[np.int64]


@dataclass
class LocalExperts:
    """Computes on the tokens that arrived at a rank for its experts of one layer.

    ``up[e][hidden, inner]`` and ``down[e][inner, hidden]`` are weights, ``up_gradient`` and ``down_gradient`` are added to; of
    gated experts the first has twice as many columns. ``rows[e]`` numbers the ``arrived`` tokens of local expert e. The methods
    are the operations of the Schedule, in their order.
    """

    up: Sequence[Array]
    down: Sequence[Array]
    up_gradient: Sequence[Array]
    down_gradient: Sequence[Array]
    gated: bool
    rows: list[Index]
    arrived: Array
    rounded: Rounded = exact
    _inner: list[Array] = field(default_factory=list)
    _active: list[Array] = field(default_factory=list)
    _gradient: Array | None = None
    _inner_gradient: list[Array] = field(default_factory=list)

    def up_product(self) -> None:
        """Inner activations of each expert's tokens."""
        take = self.rounded.operand
        self._inner = [
            self.rounded(take(self.arrived[rows]) @ take(weights))
            for rows, weights in zip(self.rows, self.up, strict=True)
        ]

    def activate(self) -> None:
        """Between the products."""
        self._active = [self.rounded(f.activate(inner, self.gated)) for inner in self._inner]

    def down_product(self) -> Array:
        """The experts' answers, in the order in which tokens arrived."""
        answers = np.empty_like(self.arrived)
        for rows, active, weights in zip(self.rows, self._active, self.down, strict=True):
            answers[rows] = self.rounded(self.rounded.operand(active) @ self.rounded.operand(weights))
        return answers

    def take_gradient(self, gradient: Array) -> None:
        """The gradient of the answers has arrived."""
        self._gradient = gradient

    def down_dgrad(self) -> None:
        """Gradient of what the second product takes."""
        pairs = zip(self.rows, self.down, strict=True)
        self._inner_gradient = [
            self.rounded(self._answers(rows) @ self.rounded.operand(weights).T) for rows, weights in pairs
        ]

    def down_wgrad(self) -> None:
        """Gradient of the second matrix."""
        for rows, active, total in zip(self.rows, self._active, self.down_gradient, strict=True):
            total += self.rounded.operand(active).T @ self._answers(rows)

    def activate_gradient(self) -> None:
        """Gradient of the inner activations."""
        pairs = zip(self._inner, self._inner_gradient, strict=True)
        self._inner_gradient = [self.rounded(f.activate_grad(inner, gradient, self.gated)) for inner, gradient in pairs]

    def up_dgrad(self) -> Array:
        """Gradient of the tokens, in the order in which they arrived."""
        gradient = np.empty_like(self.arrived)
        for rows, inner, weights in zip(self.rows, self._inner_gradient, self.up, strict=True):
            gradient[rows] = self.rounded(self.rounded.gradient(inner) @ self.rounded.operand(weights).T)
        return gradient

    def up_wgrad(self) -> None:
        """Gradient of the first matrix."""
        for rows, inner, total in zip(self.rows, self._inner_gradient, self.up_gradient, strict=True):
            total += self.rounded.operand(self.arrived[rows]).T @ self.rounded.gradient(inner)

    def _answers(self, rows: Index) -> Array:
        assert self._gradient is not None, "no gradient has arrived"
        return self.rounded.gradient(self._gradient[rows])
