"""Tensor parallelism in one dimension, after Megatron; with sequence parallelism around it.

Of each pair of products the first weight is cut by columns and the second by rows, so that one all-reduce forward and one
backward suffice for each pair: 4 of b·s·h in a layer (Shoeybi et al. 2019). With sequence parallelism norms and residuals are cut
by tokens, and each all-reduce becomes an all-gather and a reduce-scatter of the same volume together; the gathered input is not
kept, and gathered once more for the gradient of the weight (Korthikanti et al. 2022, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from ....hardware.precisions import BYTES
from ...model.precision import Part
from ...schedule.operation import Role, Task
from ...schedule.work import Exchange
from ..builder import Program
from ..layer.rank_share import Local
from .none import Cut, NoTensorParallel

LOSS_NUMBERS = 3
"""Numbers a token that the ranks of a cut vocabulary tell each other: maximum, sum of exponentials, the target's logit."""


@dataclass(frozen=True)
class Megatron1D(NoTensorParallel):
    """Weights cut along tp, or ``along`` a part of it, whose groups each have their ``share`` of the tokens."""

    along: tuple[str, ...] = ("tp",)
    share: float = 1.0

    def gather(self, program: Program, local: Local, at: Task) -> None:
        """With sequence parallelism all tokens come together."""
        if local.plan.sequence_parallel:
            self._send(program, local, at.doing(Role.INPUT_GATHER, at.operand, overlaps="next product"), "all-gather")

    def reduce(self, program: Program, local: Local, at: Task) -> None:
        """Partial sums are added up: for all tokens, or each rank's own."""
        kind = "reduce-scatter" if local.plan.sequence_parallel else "all-reduce"
        self._send(program, local, at.doing(Role.OUTPUT_SUM, overlaps="last product"), kind)

    def reduce_backward(self, program: Program, local: Local, at: Task) -> None:
        """With sequence parallelism gradients of all tokens come together."""
        if local.plan.sequence_parallel:
            self._send(
                program, local, at.doing(Role.OUTPUT_SUM, gradient="input", overlaps="next product"), "all-gather"
            )

    def gather_again(self, program: Program, local: Local, at: Task) -> None:
        """With sequence parallelism the input was not kept."""
        if local.plan.sequence_parallel:
            again = at.doing(Role.INPUT_GATHER, at.operand, "weight", overlaps="next product")
            self._send(program, local, again, "all-gather")

    def gather_backward(self, program: Program, local: Local, at: Task) -> None:
        """Partial gradients of the input are added up."""
        kind = "reduce-scatter" if local.plan.sequence_parallel else "all-reduce"
        self._send(program, local, at.doing(Role.INPUT_GATHER, at.operand, "input", overlaps="last product"), kind)

    def loss(self, program: Program, local: Local, at: Task) -> None:
        """A few numbers for each token."""
        nbytes = LOSS_NUMBERS * BYTES[local.exact] * local.tokens
        exchange = Exchange("all-reduce", "ring", self.along, nbytes, local.exact)
        program.add(at.doing(Role.LOSS_SUM), exchange, "tensor_parallel")

    def lookup(self, program: Program, local: Local, at: Task) -> None:
        """Each rank knows its part of the vocabulary."""
        super().lookup(program, local, at)
        self.reduce(program, local, at)

    def lookup_backward(self, program: Program, local: Local, at: Task) -> None:
        """With sequence parallelism gradients of all tokens come together first."""
        self.reduce_backward(program, local, at)
        super().lookup_backward(program, local, at)

    def shape(self, local: Local, n: float, k: float, cut: Cut) -> tuple[float, float]:
        """One dimension is cut."""
        parts = local.width
        return (n / parts, k) if cut == "column" else (n, k / parts) if cut == "row" else (n, k)

    def _send(self, program: Program, local: Local, task: Task, operation: str, part: Part = "norm") -> None:
        """A collective over tp of the rank's tokens, in the format of the residual stream."""
        element = local.formats[part].compute
        exchange = Exchange(operation, "ring", self.along, self.share * local.whole * BYTES[element], element)
        program.add(task, exchange, "tensor_parallel")
