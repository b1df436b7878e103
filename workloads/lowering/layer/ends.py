"""What comes before the first layer and after the last: embedding, projection of patches, output and loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...frameworks import ElementBytes
from ...schedule.operation import Role, Task
from ...schedule.work import Sweep
from ..builder import Program
from ..tensor_parallel.none import NoTensorParallel
from .rank_share import NORM_FLOPS, SOFTMAX_FLOPS, Local

EMBEDDING, DECODER_EMBEDDING, ENCODER, OUTPUT = (
    Task(part="embedding"),
    Task(part="decoder embedding"),
    Task(part="encoder"),
    Task(part="output"),
)


@dataclass(frozen=True)
class Ends:
    """Lowers both ends: ``first`` is the stack that starts (the encoder where there is one), ``last`` the one that ends."""

    first: Local
    last: Local
    tensor: NoTensorParallel
    around_loss: tuple[ElementBytes, ElementBytes] = (
        ElementBytes(0, 0),
        ElementBytes(0, 0),
    )  # of a logit, forward and backward

    def embed(self, program: Program) -> None:
        """Look up the embedding of every token; an image's patches are projected instead."""
        self.tensor.lookup(program, self.first, EMBEDDING)
        if self.first.model.patches:
            self.features(program)
            m, n, k = self._patches
            program.add(EMBEDDING.doing(Role.PRODUCT, "patches"), self.first.gemm(m, n, k, "embedding"))

    def features(self, program: Program) -> None:
        """What a backbone makes of the patches: convolutions as products, each with a norm and an activation behind it.

        It is not trained, so that the way back ends before it; ranks that share heads each do all of their patches.
        """
        local, made = self.first, 0.0
        patches = local.tokens * local.model.patches / local.model.seq_len
        for number, each in enumerate(local.model.convolutions):
            product = local.gemm(patches * each.pixels, each.channels, each.inputs, "embedding", each.count)
            program.add(EMBEDDING.doing(Role.PRODUCT, "features", step=number), product)
            made += patches * each.elements
        if made:
            program.add(EMBEDDING.doing(Role.ACTIVATION, "features"), local.sweep("embedding", made, flops=NORM_FLOPS))

    def embed_backward(self, program: Program) -> None:
        """Gradients of embedding and projection."""
        if self.first.model.patches:
            m, n, k = self._patches
            gradient = self.first.weight_gradient(k, n, m, "embedding")
            program.add(EMBEDDING.doing(Role.PRODUCT, "patches", "weight"), gradient)
        self.tensor.lookup_backward(program, self.first, EMBEDDING)

    def turn(self, program: Program) -> None:
        """From encoder to decoder: the encoder's own norm, and the embedding of the decoder's tokens."""
        program.add(ENCODER.doing(Role.NORM), self.first.sweep("norm", self.first.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, self.first, ENCODER.doing(Role.NORM))
        self.tensor.lookup(program, self.last, DECODER_EMBEDDING)

    def turn_backward(self, program: Program) -> None:
        """Their gradients."""
        self.tensor.lookup_backward(program, self.last, DECODER_EMBEDDING)
        program.add(
            ENCODER.doing(Role.NORM, gradient="input"),
            self.first.last_norm_gradient(),
        )
        self.tensor.norm(program, self.first, ENCODER.doing(Role.NORM, gradient="input"))

    def output(self, program: Program, at: Task = OUTPUT) -> None:
        """Final norm, scores over the vocabulary, and the loss; ``at`` says of which layer, if not of the last."""
        local = self.last
        program.add(at.doing(Role.NORM), local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, at.doing(Role.NORM))
        self.tensor.gather(program, local, at)
        self.tensor.logits(program, local, at)
        loss, more = local.sweep("embedding", self._logits, flops=SOFTMAX_FLOPS), self.around_loss[0]
        loss = replace(loss, read=loss.read + more.read, written=loss.written + more.written, streams=any(more))
        program.add(at.doing(Role.LOSS), loss)
        self.tensor.loss(program, local, at)

    def output_backward(self, program: Program, at: Task = OUTPUT) -> None:
        """Gradients of the output layer."""
        local, back = self.last, self.around_loss[1]
        if any(back):
            program.add(
                at.doing(Role.LOSS, gradient="input"),
                Sweep(self._logits, back.read, back.written, 0.0, local.exact, streams=True),
            )
        self.tensor.gather_again(program, local, at)
        self.tensor.logits_backward(program, local, at)
        self.tensor.gather_backward(program, local, at)
        program.add(at.doing(Role.NORM, gradient="input"), local.last_norm_gradient())
        self.tensor.norm(program, local, at.doing(Role.NORM, gradient="input"))

    @property
    def _logits(self) -> float:
        return self.last.tokens * self.tensor.words(self.last) / self.last.width

    @property
    def _patches(self) -> tuple[float, float, float]:
        """Patches of the rank's sequences, hidden size, numbers of a patch."""
        model, local = self.first.model, self.first
        rows = local.tokens * model.patches / model.seq_len
        return rows, model.hidden / local.width, float(model.patch_values)
