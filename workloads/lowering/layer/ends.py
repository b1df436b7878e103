"""What comes before the first layer and after the last: embedding, projection of patches, output and loss."""

from __future__ import annotations

from dataclasses import dataclass

from ..builder import Program
from ..tensor_parallel.none import NoTensorParallel
from .rank_share import NORM_FLOPS, SOFTMAX_FLOPS, Local


@dataclass(frozen=True)
class Ends:
    """Lowers both ends: ``first`` is the stack that starts (the encoder where there is one), ``last`` the one that ends."""

    first: Local
    last: Local
    tensor: NoTensorParallel

    def embed(self, program: Program) -> None:
        """Look up the embedding of every token; an image's patches are projected instead."""
        self.tensor.lookup(program, self.first)
        if self.first.model.patches:
            m, n, k = self._patches
            program.add("embedding.patches", self.first.gemm(m, n, k, "embedding"))

    def embed_backward(self, program: Program) -> None:
        """Gradients of embedding and projection."""
        if self.first.model.patches:
            m, n, k = self._patches
            program.add("embedding.patches.wgrad", self.first.gemm(k, n, m, "embedding"))
        self.tensor.lookup_backward(program, self.first)

    def turn(self, program: Program) -> None:
        """From encoder to decoder: the encoder's own norm, and the embedding of the decoder's tokens."""
        program.add("encoder.norm", self.first.sweep("norm", self.first.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, self.first, "encoder.norm")
        self.tensor.lookup(program, self.last, "embedding.decoder")

    def turn_backward(self, program: Program) -> None:
        """Their gradients."""
        self.tensor.lookup_backward(program, self.last, "embedding.decoder")
        program.add("encoder.norm.grad", self.first.sweep("norm", self.first.stream, reads=3, flops=NORM_FLOPS))
        self.tensor.norm(program, self.first, "encoder.norm.grad")

    def output(self, program: Program) -> None:
        """Final norm, scores over the vocabulary, and the loss."""
        local = self.last
        program.add("output.norm", local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, "output.norm")
        self.tensor.gather(program, local, "output")
        self.tensor.logits(program, local)
        program.add("output.loss", local.sweep("embedding", self._logits, flops=SOFTMAX_FLOPS))
        self.tensor.loss(program, local)

    def output_backward(self, program: Program) -> None:
        """Gradients of the output layer."""
        local = self.last
        self.tensor.gather_again(program, local, "output")
        self.tensor.logits_backward(program, local)
        self.tensor.gather_backward(program, local, "output")
        program.add("output.norm.grad", local.sweep("norm", local.stream, reads=3, flops=NORM_FLOPS))
        self.tensor.norm(program, local, "output.norm.grad")

    @property
    def _logits(self) -> float:
        return self.last.tokens * self.tensor.words(self.last) / self.last.width

    @property
    def _patches(self) -> tuple[float, float, float]:
        """Patches of the rank's sequences, hidden size, numbers of a patch."""
        model, local = self.first.model, self.first
        rows = local.tokens * model.patches / model.seq_len
        return rows, model.hidden / local.width, float(model.patch_values)
