"""The dense part of a step: attention, embedding and output layer, forward and backward, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass

from ...hardware.precisions import BYTES
from ..model import Model
from ..precision import Formats, Part
from ..schedule import Amount, Gemm, Sweep
from .program import Program

NORM_FLOPS, SOFTMAX_FLOPS = 8, 5
"""FLOPs an element of a layer norm and of a softmax; they decide nothing, since both are bound by memory."""


@dataclass(frozen=True)
class Dense:
    """Lowers what is no expert, for one micro-batch of ``tokens`` tokens a rank in sequences of ``seq_len``."""

    model: Model
    formats: dict[Part, Formats]
    tokens: int
    seq_len: int

    def sweep(self, part: Part, size: Amount, reads: float = 1, writes: float = 1, flops: float = 1) -> Sweep:
        """A sweep over ``size`` elements that reads and writes so many elements for each, in the format of a part."""
        precision = self.formats[part].compute
        return Sweep(size, reads * BYTES[precision], writes * BYTES[precision], flops, precision)

    @property
    def stream(self) -> float:
        """Elements of the residual stream: tokens x hidden."""
        return float(self.tokens * self.model.hidden)

    @property
    def _scores(self) -> float:
        """Elements of the attention scores: heads x tokens x sequence; no causal saving is taken."""
        return float(self.model.heads * self.tokens * self.seq_len)

    def _gemm(self, n: float, k: float, part: Part) -> Gemm:
        return Gemm(float(self.tokens), n, k, 1.0, self.formats[part].compute)

    def _heads(self, m: float, n: float, k: float) -> Gemm:
        """A product for every head and sequence."""
        count = self.model.heads * self.tokens / self.seq_len
        return Gemm(m, n, k, count, self.formats["attention"].compute)

    def backward_gemms(self, program: Program, name: str, n: float, k: float, part: Part) -> None:
        """Gradients of a product [tokens, k] x [k, n]: of its input, and of its weights."""
        program.add(f"{name}.dgrad", self._gemm(k, n, part))
        program.add(f"{name}.wgrad", Gemm(k, n, float(self.tokens), 1.0, self.formats[part].compute))

    def embed(self, program: Program) -> None:
        """Look up the embedding of every token."""
        program.add("embedding.lookup", self.sweep("embedding", self.stream, flops=0))

    def attention(self, program: Program, layer: int) -> None:
        """Pre-norm multi-head attention with its residual."""
        h, s, d = self.model.hidden, self.seq_len, self.model.hidden / self.model.heads
        at = f"l{layer}.attention"
        program.add(f"{at}.norm", self.sweep("norm", self.stream, flops=NORM_FLOPS))
        program.add(f"{at}.qkv", self._gemm(3 * h, h, "attention"))
        program.add(f"{at}.scores", self._heads(s, s, d))
        program.add(f"{at}.softmax", self.sweep("attention", self._scores, flops=SOFTMAX_FLOPS))
        program.add(f"{at}.context", self._heads(s, d, s))
        program.add(f"{at}.out", self._gemm(h, h, "attention"))
        program.add(f"{at}.residual", self.sweep("norm", self.stream, reads=2))

    def attention_backward(self, program: Program, layer: int) -> None:
        """The same in reverse: two products for each of the forward pass."""
        h, s, d = self.model.hidden, self.seq_len, self.model.hidden / self.model.heads
        at = f"l{layer}.attention"
        self.backward_gemms(program, f"{at}.out", h, h, "attention")
        program.add(f"{at}.context.dvalues", self._heads(s, d, s))
        program.add(f"{at}.context.dscores", self._heads(s, s, d))
        program.add(f"{at}.softmax.grad", self.sweep("attention", self._scores, reads=2, flops=SOFTMAX_FLOPS))
        program.add(f"{at}.scores.dqueries", self._heads(s, d, s))
        program.add(f"{at}.scores.dkeys", self._heads(s, d, s))
        self.backward_gemms(program, f"{at}.qkv", 3 * h, h, "attention")
        program.add(f"{at}.norm.grad", self.sweep("norm", self.stream, reads=3, flops=NORM_FLOPS))

    def output(self, program: Program) -> None:
        """Final norm, scores over the vocabulary with the embedding's weights, and the loss."""
        logits = float(self.tokens * self.model.vocabulary)
        program.add("output.norm", self.sweep("norm", self.stream, flops=NORM_FLOPS))
        program.add("output.logits", self._gemm(self.model.vocabulary, self.model.hidden, "embedding"))
        program.add("output.loss", self.sweep("embedding", logits, flops=SOFTMAX_FLOPS))

    def output_backward(self, program: Program) -> None:
        """Gradients of the output layer."""
        self.backward_gemms(program, "output.logits", self.model.vocabulary, self.model.hidden, "embedding")
        program.add("output.norm.grad", self.sweep("norm", self.stream, reads=3, flops=NORM_FLOPS))

    def embed_backward(self, program: Program) -> None:
        """Add every token's gradient to its row of the embedding."""
        program.add("embedding.grad", self.sweep("embedding", self.stream, reads=2))
