"""What every token passes beside the routed experts of a layer, on one rank: shared experts, as one FFN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .....workloads.schedule.operation import Does, Role, Task
from .. import functions as f
from ..halves import Shared
from ..messages import Array, Message
from ..products import Product
from ..weights.shards import ProductWeight, Weight


class SharedExperts:
    """Two products, cut over ``tp``, and an activation between them.

    ``rows()`` are those that the layer's norm made, ``gathered()`` all tokens' of those that are routed, and ``behind()`` the
    gradient of what is routed. Where all ranks of ``tp`` route the same tokens, exchanges over ``tp`` are those of the routed
    experts, which add up both. Where they route tokens of their own (``apart``), this part has exchanges of its own.
    """

    def __init__(
        self,
        shared: Shared,
        layer: int | None,
        apart: bool,
        rows: Callable[[], Array],
        gathered: Callable[[], Array],
        behind: Callable[[], Array],
    ) -> None:
        self.shared, self.layer, self.apart = shared, layer, apart
        self._rows, self._gathered, self._behind = rows, gathered, behind
        self._inner = self._inner_back = np.zeros((0, 0))
        self._whole: Array | None = None  # rows of all tokens, under sequence parallelism
        self._whole_behind: Array | None = None
        self._sum: Array | None = None
        self._before: Array | None = None
        self.up, self.down = self._product("up"), self._product("down")
        self._exchanging: dict[Does, Callable[[], Message]] = {
            (Role.INPUT_GATHER, None, None): self._gather,
            (Role.INPUT_GATHER, None, "weight"): self._gather,
            (Role.INPUT_GATHER, None, "input"): lambda: self._added(self.up.da, self._take_before),
            (Role.OUTPUT_SUM, None, None): lambda: self._added(self.down.c, self._take_sum),
            (Role.OUTPUT_SUM, None, "input"): self._gather_behind,
        }

    @property
    def answer(self) -> Array:
        """What it adds to the routed experts' answers."""
        return self.down.c if self._sum is None else self._sum

    @property
    def input_gradient(self) -> Array:
        """The gradient of its rows."""
        return self.up.da if self._before is None else self._before

    def compute(self, task: Task) -> None:
        """Do what an operation computes."""
        gated = self.shared.sizes.gated
        if task.role is Role.PRODUCT:
            {"up": self.up, "down": self.down}[str(task.operand)].compute(task.gradient, task.step or 0)
        elif task.gradient is None:
            self._inner = f.activate(self.up.c, gated)
        else:
            self._inner_back = f.activate_grad(self.up.c, self.down.da, gated)

    def message(self, task: Task) -> Message:
        """The rank's side of an exchange of its own."""
        return self._exchanging[task.does]()

    def _source(self) -> Array:
        if not self.apart:
            return self._gathered()
        return self._rows() if self._whole is None else self._whole

    def _answer_gradient(self) -> Array:
        if not self.apart:
            return self._behind()
        return self.shared.stream if self._whole_behind is None else self._whole_behind

    def _gather(self) -> Message:
        def take(parts: Array) -> None:
            self._whole = self.up.a = parts.reshape(-1, parts.shape[-1])

        return Message("all-gather", ("tp",), self._rows(), take)

    def _gather_behind(self) -> Message:
        def take(parts: Array) -> None:
            self._whole_behind = parts.reshape(-1, parts.shape[-1])

        return Message("all-gather", ("tp",), self.shared.stream, take)

    def _added(self, rows: Array, take: Callable[[Array], None]) -> Message:
        """Partial sums of all ranks: whole for each, or, under sequence parallelism, each its own tokens'."""
        place = self.shared.place
        if place.sequence_parallel:
            return Message("reduce-scatter", ("tp",), rows.reshape(place.of("tp"), -1, rows.shape[1]), take)
        return Message("all-reduce", ("tp",), rows, take)

    def _take_sum(self, total: Array) -> None:
        """Rows of others' tokens are not kept for the way back."""
        self._sum = total
        if self._whole is not None:
            self._whole, self.up.a = None, self._rows()

    def _take_before(self, total: Array) -> None:
        self._before, self._whole, self._whole_behind = total, None, None

    def _product(self, kind: ProductWeight) -> Product:
        key, first = Weight(self.layer, "shared experts", kind), kind == "up"
        return Product(
            self.shared.place,
            lambda: self.shared.weights[key],
            lambda: self.shared.gradients[key],
            self._source if first else lambda: self._inner,
            (lambda: self._inner_back) if first else self._answer_gradient,
            self.shared.rounded("ffn"),
        )
