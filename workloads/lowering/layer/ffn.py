"""The dense feed-forward half of a layer, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

from ..builder import Program
from ..tensor_parallel.none import NoTensorParallel
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
        local, at = self.local, f"l{layer}.ffn"
        program.add(f"{at}.norm", local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, f"{at}.norm")
        self.tensor.gather(program, local, at)
        self.inner(program, at, local.model.ffn_hidden)
        self.tensor.reduce(program, local, at)
        program.add(f"{at}.residual", local.residual())

    def products_again(self, program: Program, layer: int) -> None:
        """What is between the products that are kept, and of a gated FFN the second of its first two."""
        local, at, gates = self.local, f"l{layer}.ffn", self.local.model.matrices - 2
        program.add(f"{at}.norm", local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, f"{at}.norm")
        self.tensor.gather(program, local, at)
        if gates:
            width = gates * local.model.ffn_hidden
            self.tensor.product(program, local, f"{at}.up", width, local.model.hidden, "ffn", "column")
        inner = local.tokens * local.model.ffn_hidden / local.width
        program.add(f"{at}.activation", local.sweep("ffn", inner, reads=1 + gates, flops=ACTIVATION_FLOPS))

    def inner(self, program: Program, at: str, width: float) -> None:
        """Both products and the activation between them."""
        model, local, ups = self.local.model, self.local, self.local.model.matrices - 1
        self.tensor.product(program, local, f"{at}.up", ups * width, model.hidden, "ffn", "column")
        inner = local.tokens * width / local.width
        program.add(f"{at}.activation", local.sweep("ffn", inner, reads=ups, flops=ACTIVATION_FLOPS))
        self.tensor.product(program, local, f"{at}.down", model.hidden, width, "ffn", "row")

    def backward(self, program: Program, layer: int) -> None:
        """Gradients of the FFN."""
        local, at = self.local, f"l{layer}.ffn"
        self.tensor.reduce_backward(program, local, at)
        self.inner_backward(program, at, local.model.ffn_hidden)
        self.tensor.gather_backward(program, local, at)
        program.add(f"{at}.norm.grad", local.norm_gradient())
        self.tensor.norm(program, local, f"{at}.norm.grad")

    def inner_backward(self, program: Program, at: str, width: float, again: bool = True) -> None:
        """Gradients of both products."""
        model, local, ups = self.local.model, self.local, self.local.model.matrices - 1
        self.tensor.product_backward(program, local, f"{at}.down", model.hidden, width, "ffn", "row")
        inner = local.tokens * width / local.width
        sweep = local.sweep("ffn", inner, reads=1 + ups, writes=ups, flops=ACTIVATION_FLOPS)
        program.add(f"{at}.activation.grad", sweep)
        if again:
            self.tensor.gather_again(program, local, at)
        self.tensor.product_backward(program, local, f"{at}.up", ups * width, model.hidden, "ffn", "column")
