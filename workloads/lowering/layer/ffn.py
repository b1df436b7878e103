"""The dense feed-forward half of a layer, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...schedule.operation import ModelPart, Operand, Role, Task
from ..builder import Program
from ..tensor_parallel.none import NoTensorParallel
from .adapters import Adapter, adapter
from .rank_share import NORM_FLOPS, Local

ACTIVATION_FLOPS = 8
"""FLOPs an element of an activation; it is bound by memory."""


@dataclass(frozen=True)
class FeedForward:
    """Lowers the FFN of a layer."""

    local: Local
    tensor: NoTensorParallel

    def forward(self, program: Program, layer: int) -> None:
        """Pre-norm FFN with its residual."""
        local, at = self.local, Task(part="ffn", layer=layer)
        program.add(at.doing(Role.NORM), local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, at.doing(Role.NORM))
        self.tensor.gather(program, local, at)
        self.inner(program, at, local.model.ffn_hidden)
        self.tensor.reduce(program, local, at)
        program.add(at.doing(Role.RESIDUAL), local.residual())

    def products_again(self, program: Program, layer: int) -> None:
        """What is between the products that are kept, and of a gated FFN the second of its first two."""
        local, at, gates = self.local, Task(part="ffn", layer=layer), self.local.model.matrices - 2
        program.add(at.doing(Role.NORM), local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, at.doing(Role.NORM))
        self.tensor.gather(program, local, at)
        if gates:
            width = gates * local.model.ffn_hidden
            self.tensor.product(program, local, replace(at, operand="up"), width, local.model.hidden, "ffn", "column")
        inner = local.tokens * local.model.ffn_hidden / local.width
        program.add(at.doing(Role.ACTIVATION), local.sweep("ffn", inner, reads=1 + gates, flops=ACTIVATION_FLOPS))

    def norm_again(self, program: Program, layer: int, part: ModelPart) -> None:
        """The norm before it, or before experts."""
        local, at = self.local, Task(part=part, layer=layer)
        program.add(at.doing(Role.NORM), local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, at.doing(Role.NORM))

    def inner(self, program: Program, at: Task, width: float) -> None:
        """Both products and the activation between them."""
        model, local, ups = self.local.model, self.local, self.local.model.matrices - 1
        self.tensor.product(program, local, replace(at, operand="up"), ups * width, model.hidden, "ffn", "column")
        if beside := self._adapter(at, "up"):
            beside.forward(program, at.layer, ups * width, model.hidden)
        inner = local.tokens * width / local.width
        program.add(at.doing(Role.ACTIVATION), local.sweep("ffn", inner, reads=ups, flops=ACTIVATION_FLOPS))
        self.tensor.product(program, local, replace(at, operand="down"), model.hidden, width, "ffn", "row")
        if beside := self._adapter(at, "down"):
            beside.forward(program, at.layer, model.hidden, width)

    def _adapter(self, at: Task, operand: Operand) -> Adapter | None:
        """The adapter of one of its matrices, in a dense FFN."""
        return adapter(self.local, operand) if at.part == "ffn" else None

    def backward(self, program: Program, layer: int) -> None:
        """Gradients of the FFN."""
        local, at = self.local, Task(part="ffn", layer=layer)
        self.tensor.reduce_backward(program, local, at)
        self.inner_backward(program, at, local.model.ffn_hidden)
        self.tensor.gather_backward(program, local, at)
        program.add(at.doing(Role.NORM, gradient="input"), local.norm_gradient())
        self.tensor.norm(program, local, at.doing(Role.NORM, gradient="input"))

    def inner_backward(self, program: Program, at: Task, width: float, again: bool = True) -> None:
        """Gradients of both products."""
        model, local, ups = self.local.model, self.local, self.local.model.matrices - 1
        self.tensor.product_backward(program, local, replace(at, operand="down"), model.hidden, width, "ffn", "row")
        if beside := self._adapter(at, "down"):
            beside.backward(program, at.layer, model.hidden, width)
        inner = local.tokens * width / local.width
        sweep = local.sweep("ffn", inner, reads=1 + ups, writes=ups, flops=ACTIVATION_FLOPS)
        program.add(at.doing(Role.ACTIVATION, gradient="input"), sweep)
        if again:
            self.tensor.gather_again(program, local, at)
        self.tensor.product_backward(
            program, local, replace(at, operand="up"), ups * width, model.hidden, "ffn", "column"
        )
        if beside := self._adapter(at, "up"):
            beside.backward(program, at.layer, ups * width, model.hidden)
