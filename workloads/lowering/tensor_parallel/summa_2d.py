"""Tensor parallelism in two dimensions: every product is a SUMMA on a q x q grid, after Optimus.

Activations and weights are both cut into q x q blocks. C = A B takes q steps, in each of which a block of A goes along its row
and a block of B along its column; gradients reduce instead of broadcasting one of the two (Xu et al. 2021, algorithms 1-3). A
layer moves about (b·s·h + h²)/q numbers a rank where one dimension moves b·s·h. Sequences are cut over rows, hidden elements and
heads over columns. Blocks go along chains of ranks, chunk after chunk, so that each takes about its own bytes' time.
"""

from __future__ import annotations

from ....hardware.precisions import BYTES, Precision
from ...model.precision import Part
from ...schedule.operation import Role, Task
from ...schedule.work import Exchange
from ..builder import Program
from ..layer.rank_share import Local
from .none import Cut, NoTensorParallel

NORM_NUMBERS, LOSS_NUMBERS = 2, 3
"""Numbers a token that the ranks of a row add up: of a norm the sum and that of squares; of the loss as in one dimension."""


class Summa2D(NoTensorParallel):
    """Weights and activations cut along row and col."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.algorithm = "chain" if side > 2 else "binomial"  # between two ranks they are the same message

    def norm(self, program: Program, local: Local, at: Task) -> None:
        """A token's elements lie on all ranks of a row."""
        self._few(program, local, at.doing(Role.NORM_SUM, gradient=at.gradient), NORM_NUMBERS)

    def loss(self, program: Program, local: Local, at: Task) -> None:
        """So do its scores."""
        self._few(program, local, at.doing(Role.LOSS_SUM), LOSS_NUMBERS)

    def lookup(self, program: Program, local: Local, at: Task) -> None:
        """The vocabulary is cut over rows: in each step one block of it goes along the columns."""
        block, element = self._embedding(local)
        for step in range(self.side):
            self._one(program, at.doing(Role.BLOCK_OF_WEIGHT, step=step), "broadcast", "row", block, element, step)
            program.add(at.doing(Role.LOOKUP, step=step), local.sweep("embedding", local.stream, flops=0))

    def lookup_backward(self, program: Program, local: Local, at: Task) -> None:
        """The way back: sums of each block's gradients."""
        block, element = self._embedding(local)
        for step in range(self.side):
            program.add(
                at.doing(Role.LOOKUP, gradient="weight", step=step), local.sweep("embedding", local.stream, reads=2)
            )
            self._one(
                program, at.doing(Role.BLOCK_SUM, gradient="weight", step=step), "reduce", "row", block, element, step
            )

    def logits(self, program: Program, local: Local, at: Task) -> None:
        """C = A Bᵀ with the embedding's blocks: they go along columns, sums along rows."""
        block, element = self._embedding(local)
        words = self.words(local) / self.side
        for step in range(self.side):
            self._one(
                program, at.doing(Role.BLOCK_OF_WEIGHT, "logits", step=step), "broadcast", "row", block, element, step
            )
            program.add(
                at.doing(Role.PRODUCT, "logits", step=step),
                local.gemm(local.tokens, words, local.model.hidden / self.side, "embedding"),
            )
            size = local.tokens * words
            self._one(program, at.doing(Role.BLOCK_SUM, "logits", step=step), "reduce", "col", size, element, step)

    def logits_backward(self, program: Program, local: Local, at: Task) -> None:
        """DA = dC B and dB = dCᵀ A."""
        block, element = self._embedding(local)
        words, h = self.words(local) / self.side, local.model.hidden / self.side
        for step in range(self.side):
            self._one(
                program,
                at.doing(Role.BLOCK_OF_INPUT, "logits", "input", step=step),
                "broadcast",
                "col",
                local.tokens * words,
                element,
                step,
            )
            self._one(
                program,
                at.doing(Role.BLOCK_OF_WEIGHT, "logits", "input", step=step),
                "broadcast",
                "row",
                block,
                element,
                step,
            )
            program.add(
                at.doing(Role.PRODUCT, "logits", "input", step=step), local.gemm(local.tokens, h, words, "embedding")
            )
        for step in range(self.side):
            self._one(
                program,
                at.doing(Role.BLOCK_OF_INPUT, "logits", "weight", step=step),
                "broadcast",
                "col",
                local.tokens * words,
                element,
                step,
            )
            program.add(
                at.doing(Role.PRODUCT, "logits", "weight", step=step), local.gemm(words, h, local.tokens, "embedding")
            )
            self._one(
                program, at.doing(Role.BLOCK_SUM, "logits", "weight", step=step), "reduce", "row", block, element, step
            )

    def _embedding(self, local: Local) -> tuple[float, Precision]:
        """Elements of a block of the embedding, and its format."""
        return self.words(local) * local.model.hidden / self.side**2, local.formats["embedding"].compute

    def product(self, program: Program, local: Local, at: Task, n: float, k: float, part: Part, cut: Cut) -> None:
        """C = A B: blocks of A along rows, of B along columns."""
        m, n, k, element = self._blocks(local, n, k, part)
        for step in range(self.side):
            self._one(
                program, at.doing(Role.BLOCK_OF_INPUT, at.operand, step=step), "broadcast", "col", m * k, element, step
            )
            self._one(
                program, at.doing(Role.BLOCK_OF_WEIGHT, at.operand, step=step), "broadcast", "row", k * n, element, step
            )
            program.add(at.doing(Role.PRODUCT, at.operand, step=step), local.gemm(m, n, k, part))

    def product_backward(
        self, program: Program, local: Local, at: Task, n: float, k: float, part: Part, cut: Cut
    ) -> None:
        """DA = dC Bᵀ: blocks of B along columns, sums along rows; dB = Aᵀ dC: blocks of A along rows, sums along columns."""
        m, n, k, element = self._blocks(local, n, k, part)
        for step in range(self.side):
            self._one(
                program,
                at.doing(Role.BLOCK_OF_WEIGHT, at.operand, "input", step=step),
                "broadcast",
                "row",
                k * n,
                element,
                step,
            )
            program.add(at.doing(Role.PRODUCT, at.operand, "input", step=step), local.gemm(m, k, n, part))
            self._one(
                program, at.doing(Role.BLOCK_SUM, at.operand, "input", step=step), "reduce", "col", m * k, element, step
            )
        for step in range(self.side):
            self._one(
                program,
                at.doing(Role.BLOCK_OF_INPUT, at.operand, "weight", step=step),
                "broadcast",
                "col",
                m * k,
                element,
                step,
            )
            program.add(at.doing(Role.PRODUCT, at.operand, "weight", step=step), local.gemm(k, n, m, part))
            self._one(
                program,
                at.doing(Role.BLOCK_SUM, at.operand, "weight", step=step),
                "reduce",
                "row",
                k * n,
                element,
                step,
            )

    def _blocks(self, local: Local, n: float, k: float, part: Part) -> tuple[float, float, float, Precision]:
        """Sizes of blocks (the rank's tokens are one already), and the format in which they travel."""
        return local.tokens, n / self.side, k / self.side, local.formats[part].compute

    def _few(self, program: Program, local: Local, task: Task, numbers: int) -> None:
        self._one(program, task, "all-reduce", "col", numbers * local.tokens, local.exact, 0)

    def _one(
        self, program: Program, task: Task, operation: str, axis: str, elements: float, element: Precision, root: int
    ) -> None:
        """An exchange along one axis of the grid."""
        algorithm = "ring" if operation == "all-reduce" else self.algorithm
        exchange = Exchange(operation, algorithm, (axis,), elements * BYTES[element], element, root=root)
        program.add(task, exchange, "tensor_parallel")
