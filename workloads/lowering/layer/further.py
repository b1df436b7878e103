"""What is around a layer that predicts a further token: a projection before it, and the output layer once more behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...schedule.operation import Role, Task
from ..builder import Program
from ..tensor_parallel.none import NoTensorParallel
from .ends import Ends
from .rank_share import NORM_FLOPS, Local


@dataclass(frozen=True)
class FurtherToken:
    """Lowers a module of multi-token prediction (DeepSeek-AI 2024, DeepSeek-V3, section 2.2).

    The stream and the embedding of the next token are normed, put side by side and projected to the width of the stream; behind
    the layer come a norm of its own and the output layer, whose weights and embedding the modules share with the model.
    """

    local: Local
    tensor: NoTensorParallel
    ends: Ends

    def enter(self, program: Program, layer: int, again: bool = False) -> None:
        """Embedding of the next token, which is kept, both norms, and the projection."""
        local, at = self.local, self._at(layer)
        if not again:
            self.tensor.lookup(program, local, Task(part="decoder embedding", layer=layer))
        self.norm_again(program, layer)
        self.tensor.gather(program, replace(local, tokens=2 * local.tokens), at)
        self.tensor.product(program, local, replace(at, operand="in"), *self._shape, "ffn", "row")
        self.tensor.reduce(program, local, at)

    def norm_again(self, program: Program, layer: int) -> None:
        """Both norms, as one."""
        sweep = self.local.sweep("norm", 2 * self.local.stream, flops=NORM_FLOPS)
        program.add(self._at(layer).doing(Role.NORM), sweep)

    def leave(self, program: Program, layer: int) -> None:
        """Norm, scores over the vocabulary, and the loss."""
        self.ends.output(program, Task(part="output", layer=layer))

    def leave_backward(self, program: Program, layer: int) -> None:
        """Their gradients."""
        self.ends.output_backward(program, Task(part="output", layer=layer))

    def enter_backward(self, program: Program, layer: int) -> None:
        """Gradients of the projection, of both norms and of the embedding."""
        local, at = self.local, self._at(layer)
        both = replace(local, tokens=2 * local.tokens)
        self.tensor.reduce_backward(program, local, at)
        self.tensor.gather_again(program, both, at)
        self.tensor.product_backward(program, local, replace(at, operand="in"), *self._shape, "ffn", "row")
        self.tensor.gather_backward(program, both, at)
        program.add(at.doing(Role.NORM, gradient="input"), local.sweep("norm", 2 * local.stream, 2, flops=NORM_FLOPS))
        self.tensor.lookup_backward(program, local, Task(part="decoder embedding", layer=layer))

    def _at(self, layer: int) -> Task:
        return Task(part="further token", layer=layer)

    @property
    def _shape(self) -> tuple[float, float]:
        """Columns and rows of the projection."""
        return float(self.local.model.hidden), 2.0 * self.local.model.hidden
