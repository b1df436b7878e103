"""What one rank has of a micro-batch: tokens, sequences, heads; and the sweeps over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ....hardware.precisions import BYTES, Precision
from ...mesh.axes import CONTEXT
from ...mesh.mesh import Mesh
from ...model.model import Model
from ...model.precision import Formats, Part
from ...plan.plan import Plan
from ...plan.setting import Setting
from ...schedule.work import Amount, Gemm, Sweep

NORM_FLOPS, SOFTMAX_FLOPS = 8, 5
"""FLOPs an element of a layer norm and of a softmax; they decide nothing, since both are bound by memory."""

MASK = 1
"""Bytes of an element of a dropout's mask."""


@dataclass(frozen=True)
class Local:
    """The part of a micro-batch that a rank works on, in one of the model's stacks.

    ``tokens`` are those that its products see, in sequences of which it has ``queries`` tokens each and meets ``keys`` in all.
    It ``accumulates`` gradients where a step has several micro-batches.
    """

    model: Model
    formats: Mapping[Part, Formats]
    plan: Plan
    mesh: Mesh
    tokens: float
    queries: float
    keys: float
    accumulates: bool = False

    @classmethod
    def of(cls, setting: Setting, formats: Mapping[Part, Formats], decoder: bool = False) -> Local:
        """The rank's part of a micro-batch; of the decoder's where it stands beside an encoder."""
        model, mesh = setting.model, setting.mesh
        length = float((decoder and model.decoder_seq_len) or setting.batch.seq_len)
        tokens = float(setting.micro_tokens(decoder))
        parts = mesh.size(*CONTEXT)
        sums = setting.batch.micro_batches > 1
        return cls(model, formats, setting.plan, mesh, tokens / parts / mesh.size("row"), length / parts, length, sums)

    @property
    def width(self) -> int:
        """Ranks that share heads and inner elements: tp, or the columns of a grid."""
        return self.mesh.size("tp", "col")

    @property
    def sequences(self) -> float:
        """Sequences of which the rank has a part."""
        return self.tokens / self.queries

    @property
    def stream(self) -> float:
        """Elements of the residual stream that the rank keeps: with sequence parallelism its share, on a grid its block."""
        parts = self.width if self.plan.sequence_parallel or self.mesh.size("col") > 1 else 1
        return self.tokens * self.model.hidden / parts

    @property
    def whole(self) -> float:
        """Elements of the rank's tokens, all of each."""
        return self.tokens * self.model.hidden

    @property
    def exact(self) -> Precision:
        """Format of the few numbers a token that ranks tell each other of a norm or the loss: single at least."""
        return "fp64" if self.formats["norm"].compute == "fp64" else "fp32"

    def sweep(self, part: Part, size: Amount, reads: float = 1, writes: float = 1, flops: float = 1) -> Sweep:
        """A sweep over ``size`` elements that reads and writes so many elements for each, in the format of a part."""
        precision = self.formats[part].compute
        return Sweep(size, reads * BYTES[precision], writes * BYTES[precision], flops, precision)

    def softmax(self, size: Amount, backward: bool) -> Sweep:
        """Over so many scores; with dropout (a kernel of its own) they are read and written once more, and its mask once."""
        found = self.sweep("attention", size, reads=1 + backward, flops=SOFTMAX_FLOPS)
        if not self.model.dropout:
            return found
        each = BYTES[found.precision]
        masks = (MASK, 0) if backward else (0, MASK)
        return replace(found, read=found.read + each + masks[0], written=found.written + each + masks[1])

    def residual(self) -> Sweep:
        """Sum of a half and the stream; with dropout, fused with it, a mask is written."""
        found = self.sweep("norm", self.stream, reads=2)
        return replace(found, written=found.written + MASK) if self.model.dropout else found

    def norm_gradient(self) -> Sweep:
        """Gradient of a half's norm, with that of the stream; with dropout also that of the half's output, by its mask."""
        found = self.sweep("norm", self.stream, reads=3, flops=NORM_FLOPS)
        if not self.model.dropout:
            return found
        each = BYTES[found.precision]
        return replace(found, read=found.read + each + MASK, written=found.written + each)

    def last_norm_gradient(self) -> Sweep:
        """Gradient of the norm that ends a stack: no stream goes on beside it."""
        return self.sweep("norm", self.stream, reads=2, flops=NORM_FLOPS)

    def onto(self, part: Part) -> int:
        """Bytes of an element of the gradients of earlier micro-batches, where there are any, to which a part's are added."""
        return BYTES[self.formats[part].gradient] if self.accumulates else 0

    def weight_gradient(self, m: Amount, n: float, k: Amount, part: Part, count: float = 1.0) -> Gemm:
        """Where what comes out is a weight's gradient: added to those of earlier micro-batches, where there are any."""
        return Gemm(m, n, k, count, self.formats[part].gemm, self.onto(part))

    def gemm(self, m: Amount, n: float, k: Amount, part: Part, count: float = 1.0) -> Gemm:
        """``count`` products of activations with weights of a part, or of activations for them."""
        return Gemm(m, n, k, count, self.formats[part].gemm, cast_from=self.formats[part].cast_from)
