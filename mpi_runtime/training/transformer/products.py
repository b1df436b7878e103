"""Matrix products with a weight: on a rank alone, or as SUMMA on a square grid of ranks, block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....workloads.schedule.operation import Gradient, Role
from .messages import Array, Message
from .rounding import Rounded, exact
from .weights.shards import Place


class Product:
    """One product C = A B of a micro-batch, where B is a weight, and its two gradients.

    ``weight()`` and ``total()`` give B and the sum of its gradients when they are needed, since both may come and go.
    ``source()`` gives A when the product begins, ``gradient()`` that of C when the way back does. Results are
    :attr:`c` and :attr:`da`.

    ``rounded`` brings what is multiplied, and what comes out, to the format of the part of the model; a product that
    ``shortens`` takes both in that of its products, block by block on a grid.

    On a grid of q x q ranks, each of which holds one block of every matrix, a product takes q steps (SUMMA, van de Geijn and
    Watts 1997; all three forms as Optimus has them). Step t of C = A B broadcasts A's blocks of column t along the rows
    of ranks and B's blocks of row t along the columns. Step t of dA = dC B' broadcasts B's blocks of row t and reduces
    what becomes A's column t; step t of dB = A' dC broadcasts A's column t and reduces what becomes B's row t.
    """

    def __init__(
        self,
        place: Place,
        weight: Callable[[], Array],
        total: Callable[[], Array],
        source: Callable[[], Array],
        gradient: Callable[[], Array],
        rounded: Rounded = exact,
        shortens: bool = True,
    ) -> None:
        self.place, self.rounded, self.shortens = place, rounded, shortens and rounded.product is not None
        self.total, self.source, self.gradient = total, source, gradient
        self._weight = weight
        nothing = np.zeros((0, 0))
        self.a = self.c = self.da = self.dc = nothing
        self._a = self._b = self._part = nothing  # of the step that is under way

    def weight(self) -> Array:
        """B, in the format of what is computed."""
        return self.rounded(self._weight())

    def _operand(self, values: Array) -> Array:
        return self.rounded.operand(values) if self.shortens else values

    def _gradient(self, values: Array) -> Array:
        return self.rounded.gradient(values) if self.shortens else values

    # --- what a rank computes ---------------------------------------------------------------------------------------------

    def compute(self, gradient: Gradient | None, step: int) -> None:
        """The product itself or a gradient; of a grid one step of it."""
        {None: self._forward, "input": self._dgrad, "weight": self._wgrad}[gradient](step)

    def _forward(self, step: int) -> None:
        if self.place.grid == 1:
            self.a = self.rounded(self.source())
            self.c = self.rounded(self._operand(self.a) @ self._operand(self.weight()))
        else:
            part = self._operand(self._a) @ self._operand(self._b)
            self.c = part if step == 0 else self.c + part

    def _dgrad(self, step: int) -> None:
        if step == 0:
            self.dc = self.rounded(self.gradient())
        if self.place.grid == 1:
            self.da = self.rounded(self._gradient(self.dc) @ self._operand(self.weight()).T)
        else:
            self._part = self._gradient(self.dc) @ self._operand(self._b).T

    def _wgrad(self, step: int) -> None:
        if self.place.grid == 1:
            total = self.total()
            total += self._operand(self.a).T @ self._gradient(self.dc)
        else:
            self._part = self._operand(self._a).T @ self._gradient(self.dc)

    # --- what ranks of a grid exchange ------------------------------------------------------------------------------------

    def message(self, role: Role, gradient: Gradient | None, step: int) -> Message:
        """Blocks of the input and of the weight, and sums of blocks; raises ``KeyError`` for what a product does not need."""
        if (role, gradient, step) == (Role.BLOCK_OF_INPUT, None, 0):
            self.a = self.source()
        match role, gradient:
            case Role.BLOCK_OF_INPUT, None | "weight":
                return Message("broadcast", ("col",), np.ascontiguousarray(self.a), self._take_a, step)
            case Role.BLOCK_OF_WEIGHT, None | "input":
                return Message("broadcast", ("row",), np.ascontiguousarray(self.weight()), self._take_b, step)
            case Role.BLOCK_SUM, "input":
                return Message("reduce", ("col",), self._part, self._take_da, step)
            case Role.BLOCK_SUM, "weight":
                return Message("reduce", ("row",), self._part, self._take_db, step)
        raise KeyError(role, gradient)

    def _take_a(self, block: Array) -> None:
        self._a = block

    def _take_b(self, block: Array) -> None:
        self._b = block

    def _take_da(self, block: Array) -> None:
        self.da = block

    def _take_db(self, block: Array) -> None:
        total = self.total()
        total += block


class TableProduct(Product):
    """C = A B' on a grid, where B is a table of words, cut over rows of ranks, and C's columns are words as well.

    Step t broadcasts B's blocks of row t along the columns of ranks and reduces what becomes C's column t. Step t of
    dA = dC B broadcasts dC's column t and B's row t; step t of dB = dC' A broadcasts dC's column t and reduces B's row t.
    """

    def _forward(self, step: int) -> None:
        if step == 0:
            self.a = self.source()
        self._part = self._operand(self.a) @ self._operand(self._b).T

    def _dgrad(self, step: int) -> None:
        part = self._gradient(self._a) @ self._operand(self._b)
        self.da = part if step == 0 else self.da + part

    def _wgrad(self, step: int) -> None:
        self._part = self._gradient(self._a).T @ self._operand(self.a)

    def message(self, role: Role, gradient: Gradient | None, step: int) -> Message:
        """The result's sums; dC's blocks in the place of the input's, both ways; B's blocks; sums of its gradient."""
        if (role, gradient, step) == (Role.BLOCK_OF_INPUT, "input", 0):
            self.dc = self.gradient()
        match role, gradient:
            case Role.BLOCK_SUM, None:
                return Message("reduce", ("col",), self._part, self._take_c, step)
            case Role.BLOCK_OF_INPUT, "input" | "weight":
                return Message("broadcast", ("col",), self.dc, self._take_a, step)
        return super().message(role, gradient, step)

    def _take_c(self, block: Array) -> None:
        self.c = block
