"""Attention, feed-forward network and output layer of one micro-batch on one rank, operation by operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ....workloads.model.precision import Part
from ....workloads.schedule.operation import Does, Operand, Role, Task
from . import functions as f
from .messages import Array, Message
from .products import Product, TableProduct
from .rounding import Rounded, no_rounding
from .weights.shards import Operator, Place, ProductWeight, Sizes, Weight
from .weights.tensors import PART_OF

Index = NDArray[np.int64]
Compute = Callable[[int], None]
Exchanging = Callable[[int], Message]


@dataclass
class Shared:
    """What all halves of a micro-batch know: weights and sums of gradients, and the residual stream's gradient.

    ``words`` and ``targets`` are those of this rank's sequences ``[sequences, tokens]``, its part of them under ``cp``;
    the loss is the mean of ``tokens`` tokens, and gradients are those of ``scale`` times the loss. Parts of the model compute in
    formats to which they are ``rounded``.
    """

    sizes: Sizes
    place: Place
    weights: Mapping[Weight, Array]
    gradients: Mapping[Weight, Array]
    words: Index
    targets: Index
    tokens: int
    rounded: Callable[[Part], Rounded] = no_rounding
    scale: float = 1.0
    gradient: Array | None = field(default=None)

    @property
    def stream(self) -> Array:
        """The gradient of the residual stream, which the layer above has left."""
        assert self.gradient is not None, "no gradient has come from above"
        return self.gradient

    def mine(self, values: Index) -> Index:
        """Words or targets of this rank's sequences, one after another; on a grid, rows of ranks share the replica's."""
        return values[self.place.part(len(values), "row")].reshape(-1)

    @property
    def words_each(self) -> int:
        """Words of the padded vocabulary on each rank that shares it."""
        return -(-self.sizes.vocabulary // self.place.width)


class Half(ABC):
    """One half of a layer, or the output layer: a norm, a product, something between, perhaps a second product, a residual.

    :meth:`compute` and :meth:`message` take tasks of this half. ``entry`` are the residual stream's rows that come in;
    :attr:`result` goes out.
    """

    operator: ClassVar[Operator]
    products_of: ClassVar[tuple[ProductWeight, ...]]
    begins_way_back: ClassVar[bool] = False

    def __init__(self, shared: Shared, layer: int | None) -> None:
        self.shared, self.place, self.layer = shared, shared.place, layer
        self.gain = Weight(layer, self.operator, "norm")
        self.products: dict[Operand, Product] = {each: self._product(each) for each in self.products_of}
        nothing = np.zeros((0, 0))
        self.entry: Array = nothing
        self.normal = self.inverse = self.rows = self._sums = nothing
        self._whole: Array | None = None  # rows of all tokens, under sequence parallelism
        self._reduced: Array | None = None  # the second product's, added up
        self._behind: Array | None = None  # gradient of the second product's result, of all tokens
        self._before: Array | None = None  # gradient of the first product's rows, added up
        self.computing: dict[Does, Compute] = {
            (Role.NORM, None, None): self._norm,
            (Role.NORM, None, "input"): self._norm_grad,
        }
        self.exchanging: dict[Does, Exchanging] = {
            (Role.NORM_SUM, None, None): self._norm_reduce,
            (Role.NORM_SUM, None, "input"): self._norm_grad_reduce,
            (Role.INPUT_GATHER, None, None): self._gather,
            (Role.INPUT_GATHER, None, "weight"): self._gather,
            (Role.INPUT_GATHER, None, "input"): self._gather_grad,
            (Role.OUTPUT_SUM, None, None): self._reduce,
            (Role.OUTPUT_SUM, None, "input"): self._reduce_grad,
        }

    def compute(self, task: Task) -> None:
        """Do what an operation computes."""
        if task.role is Role.PRODUCT:
            self._product_of(task).compute(task.gradient, task.step or 0)
        else:
            self.computing[task.does](task.step or 0)

    def message(self, task: Task) -> Message:
        """The rank's side of an exchange."""
        if task.role in (Role.BLOCK_OF_INPUT, Role.BLOCK_OF_WEIGHT, Role.BLOCK_SUM):
            return self._product_of(task).message(task.role, task.gradient, task.step or 0)
        return self.exchanging[task.does](task.step or 0)

    def _product_of(self, task: Task) -> Product:
        if task.operand is None:
            raise KeyError(task)
        return self.products[task.operand]

    @property
    def result(self) -> Array:
        """What the half adds to the residual stream."""
        return self._answer() if self._reduced is None else self._reduced

    def _answer(self) -> Array:
        """What the second product has made on this rank."""
        return self.products[self.products_of[1]].c

    def _input_gradient(self) -> Array:
        """The gradient of the first product's rows on this rank."""
        return self.products[self.products_of[0]].da

    def _product(self, kind: ProductWeight) -> Product:
        key = Weight(self.layer, self.operator, kind)
        first = kind == self.products_of[0]
        return Product(
            self.place,
            lambda: self.shared.weights[key],
            lambda: self.shared.gradients[key],
            self._first_source if first else self._second_source,
            self._first_gradient if first else self._second_gradient,
            self.shared.rounded(PART_OF[kind]),
            kind != "gate",  # whose scores the schedule has in the format of what is computed
        )

    # --- where products take their matrices from --------------------------------------------------------------------------

    def _first_source(self) -> Array:
        return self.rows if self._whole is None else self._whole

    def _second_source(self) -> Array:
        """What the second product multiplies, in halves that have one."""
        raise TypeError(f"{self.operator} has one product")

    @abstractmethod
    def _first_gradient(self) -> Array:
        """The gradient of what the first product made."""

    def _second_gradient(self) -> Array:
        return self.shared.stream if self._behind is None else self._behind

    # --- norm -------------------------------------------------------------------------------------------------------------

    @property
    def _parameters(self) -> Array:
        return self.shared.weights[self.gain]

    def _norm(self, step: int) -> None:
        self._sums = f.norm_sums(self.entry)
        if self.place.grid == 1:
            self._normalise(self._sums)

    def _norm_reduce(self, step: int) -> Message:
        return Message("all-reduce", ("col",), self._sums, self._normalise)

    def _normalise(self, sums: Array) -> None:
        self.normal, self.inverse = f.norm(self.entry, sums, self.shared.sizes.hidden, self.shared.sizes.rms)
        self.rows = self.shared.rounded("norm")(f.scaled(self.normal, self._parameters))
        self._whole = None

    def _norm_grad(self, step: int) -> None:
        if self._before is None:
            self._before = self._input_gradient()
        total = self.shared.gradients[self.gain]
        total += f.norm_wgrad(self._before, self.normal, self._parameters)
        self._sums = f.norm_grad_sums(self._before, self.normal, self._parameters)
        if self.place.grid == 1:
            self._leave(self._sums)

    def _norm_grad_reduce(self, step: int) -> Message:
        return Message("all-reduce", ("col",), self._sums, self._leave)

    def _leave(self, sums: Array) -> None:
        """The norm's gradient joins that of the residual stream."""
        assert self._before is not None
        width = self.shared.sizes.hidden
        back = f.norm_dgrad(self._before, self.normal, self.inverse, self._parameters, sums, width)
        above = self.shared.gradient
        total = back if above is None or self.begins_way_back else above + back
        self.shared.gradient = self.shared.rounded("norm")(total)
        self._before = None

    # --- exchanges of tensor parallelism ----------------------------------------------------------------------------------

    @property
    def _over(self) -> str:
        """The axis whose ranks have parts of the same products' weights."""
        return "tp"

    def _by_tokens(self, rows: Array) -> Array:
        """Rows of all tokens, cut over the ranks of a tensor-parallel group."""
        return rows.reshape(self.place.of(self._over), -1, rows.shape[1])

    def _all_reduce(self, rows: Array, take: Callable[[Array], None]) -> Message:
        """Partial sums of all ranks: whole for each, or, under sequence parallelism, each its own tokens'."""
        if self.place.sequence_parallel:
            return Message("reduce-scatter", (self._over,), self._by_tokens(rows), take)
        return Message("all-reduce", (self._over,), rows, take)

    def _gather(self, step: int) -> Message:
        def take(parts: Array) -> None:
            self._whole = self.products[self.products_of[0]].a = _joined(parts)

        return Message("all-gather", (self._over,), self.rows, take)

    def _reduce(self, step: int) -> Message:
        def take(total: Array) -> None:
            self._reduced = total
            self.forget()

        return self._all_reduce(self._answer(), take)

    def forget(self) -> None:
        """Rows of others' tokens are not kept for the way back."""
        if self._whole is not None:
            self._whole = None
            self.products[self.products_of[0]].a = self.rows

    def _reduce_grad(self, step: int) -> Message:
        def take(parts: Array) -> None:
            self._behind = _joined(parts)

        return Message("all-gather", (self._over,), self.shared.stream, take)

    def _gather_grad(self, step: int) -> Message:
        def take(total: Array) -> None:
            self._before, self._behind = total, None

        return self._all_reduce(self._input_gradient(), take)


class LocalFeedForward(Half):
    """The feed-forward network."""

    operator = "ffn"
    products_of = ("up", "down")

    def __init__(self, shared: Shared, layer: int | None) -> None:
        super().__init__(shared, layer)
        self._active = self._back = np.zeros((0, 0))
        self.computing |= {
            (Role.ACTIVATION, None, None): self._activate,
            (Role.ACTIVATION, None, "input"): self._activate_grad,
        }

    def _activate(self, step: int) -> None:
        self._active = self.shared.rounded("ffn")(f.activate(self.products["up"].c, self.shared.sizes.gated))

    def _activate_grad(self, step: int) -> None:
        self._back = f.activate_grad(self.products["up"].c, self.products["down"].da, self.shared.sizes.gated)

    def _second_source(self) -> Array:
        return self._active

    def _first_gradient(self) -> Array:
        return self._back


class Output(Half):
    """Final norm, scores over the vocabulary by the embedding's weights, and the loss."""

    operator = "output"
    begins_way_back = True
    products_of = ("logits",)

    def __init__(self, shared: Shared, layer: int | None = None) -> None:
        super().__init__(shared, layer)
        self._axis = "col" if self.place.grid > 1 else "tp"
        self._first = self.place.me(self._axis) * shared.words_each
        self._targets = shared.mine(shared.targets)
        self._parts: Array = np.zeros((0, 3))
        self.computing[Role.LOSS, None, None] = self._loss
        self.computing[Role.LOSS, None, "input"] = lambda step: None  # the loss leaves its gradient
        self.exchanging[Role.LOSS_SUM, None, None] = self._loss_reduce

    @property
    def loss(self) -> float:
        """The part of the mean loss that is this rank's tokens'; ranks of a tensor-parallel group share theirs."""
        return float(f.losses(self._parts).sum()) / self.shared.tokens

    def _product(self, kind: ProductWeight) -> Product:
        table, weights, gradients = self.shared.sizes.table, self.shared.weights, self.shared.gradients
        where = self._first_source, self._first_gradient, self.shared.rounded("embedding")
        if self.place.grid > 1:
            return TableProduct(self.place, lambda: weights[table], lambda: gradients[table], *where)
        return Product(self.place, lambda: weights[table].T, lambda: gradients[table].T, *where)

    def _loss(self, step: int) -> None:
        logits = self.products["logits"].c
        padding = max(0, self.shared.sizes.vocabulary - self._first)
        logits[:, padding:] = (
            np.finfo(logits.dtype).min / 2
        )  # words that are none, but finite, so that sums of parts are
        self._parts = f.loss_parts(logits, self._targets, self._first)
        self.forget()

    def _loss_reduce(self, step: int) -> Message:
        def take(parts: Array) -> None:
            self._parts = parts

        return Message("all-reduce", (self._axis,), self._parts, take, combine=f.join_losses)

    def _first_gradient(self) -> Array:
        tokens = self.shared.tokens / self.shared.scale
        return f.loss_grad(self.products["logits"].c, self._parts, self._targets, tokens, self._first)


def _joined(parts: Array) -> Array:
    """Rows of all members in one array."""
    return parts.reshape(-1, parts.shape[-1])
