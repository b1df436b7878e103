"""Products with weights on one rank alone: what tensor parallelism replaces, and where it may add to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ...model.precision import Part
from ...schedule.operation import Role, Task
from ..builder import Program
from ..layer.rank_share import Local

Cut = Literal["column", "row", "none"]
"""How a weight [k, n] is cut: its columns, its rows, or not at all."""


class NoTensorParallel:
    """No tensor parallelism: every rank has whole matrices and all of its tokens.

    A kind of tensor parallelism says what becomes of a product (:meth:`product`, :meth:`product_backward`), and what is sent
    before and after a pair of them: a first product whose weight is cut by columns, a second one cut by rows. ``at`` is the place
    in the model that it is for, with the product's weight as its operand.
    """

    def gather(self, program: Program, local: Local, at: Task) -> None:
        """Before the first product of a pair, forward."""

    def reduce(self, program: Program, local: Local, at: Task) -> None:
        """After the second product of a pair, forward."""

    def reduce_backward(self, program: Program, local: Local, at: Task) -> None:
        """Before the gradients of the second product."""

    def gather_again(self, program: Program, local: Local, at: Task) -> None:
        """Before the gradients of the first product: its input once more."""

    def gather_backward(self, program: Program, local: Local, at: Task) -> None:
        """After the gradients of the first product."""

    def norm(self, program: Program, local: Local, at: Task) -> None:
        """What a norm needs to know of other ranks."""

    def loss(self, program: Program, local: Local, at: Task) -> None:
        """What the loss needs to know of other ranks."""

    def lookup(self, program: Program, local: Local, at: Task) -> None:
        """The embedding of every token."""
        program.add(at.doing(Role.LOOKUP), local.sweep("embedding", local.whole, flops=0))

    def lookup_backward(self, program: Program, local: Local, at: Task) -> None:
        """Every token's gradient added to its row of the embedding."""
        program.add(at.doing(Role.LOOKUP, gradient="weight"), local.sweep("embedding", local.whole, reads=2))

    def logits(self, program: Program, local: Local, at: Task) -> None:
        """Scores over the vocabulary, with the embedding's or the output layer's weights."""
        words, at = self.words(local), replace(at, operand="logits")
        self.product(program, local, at, words, local.model.hidden, "embedding", "column")

    def logits_backward(self, program: Program, local: Local, at: Task) -> None:
        """Their gradients."""
        words, at = self.words(local), replace(at, operand="logits")
        self.product_backward(program, local, at, words, local.model.hidden, "embedding", "column")

    def words(self, local: Local) -> float:
        """Words of the vocabulary, padded to what its ranks can share."""
        parts = local.width
        return -(-local.model.vocabulary // parts) * parts

    def product(self, program: Program, local: Local, at: Task, n: float, k: float, part: Part, cut: Cut) -> None:
        """A product of the rank's tokens [tokens, k] with a weight [k, n]."""
        n, k = self.shape(local, n, k, cut)
        program.add(at.doing(Role.PRODUCT, at.operand), local.gemm(local.tokens, n, k, part))

    def product_backward(
        self, program: Program, local: Local, at: Task, n: float, k: float, part: Part, cut: Cut
    ) -> None:
        """Its gradients: of its input, and of its weight."""
        n, k = self.shape(local, n, k, cut)
        program.add(at.doing(Role.PRODUCT, at.operand, "input"), local.gemm(local.tokens, k, n, part))
        program.add(at.doing(Role.PRODUCT, at.operand, "weight"), local.weight_gradient(k, n, local.tokens, part))

    def shape(self, local: Local, n: float, k: float, cut: Cut) -> tuple[float, float]:
        """Columns and rows of the rank's part of a weight."""
        return n, k
