"""What one rank has of a micro-batch: tokens, sequences, heads; and the sweeps over them."""

from __future__ import annotations

from dataclasses import dataclass

from ...hardware.precisions import BYTES, Precision
from ..mesh import Mesh
from ..model import Model
from ..plan import Plan
from ..precision import Formats, Part
from ..schedule import Amount, Gemm, Sweep
from ..setting import Setting


@dataclass(frozen=True)
class Local:
    """The part of a micro-batch that a rank works on, in one of the model's stacks.

    ``tokens`` are those that its products see, in sequences of which it has ``queries`` tokens each and meets ``keys`` in all.
    """

    model: Model
    formats: dict[Part, Formats]
    plan: Plan
    mesh: Mesh
    tokens: float
    queries: float
    keys: float

    @classmethod
    def of(cls, setting: Setting, formats: dict[Part, Formats], decoder: bool = False) -> Local:
        """The rank's part of a micro-batch; of the decoder's where it stands beside an encoder."""
        model, mesh, batch = setting.model, setting.mesh, setting.batch
        length, tokens = float(batch.seq_len), float(batch.micro_tokens)
        if decoder and model.decoder_seq_len:
            length, tokens = float(model.decoder_seq_len), tokens * model.decoder_seq_len / batch.seq_len
        parts = mesh.size("cp")
        return cls(model, formats, setting.plan, mesh, tokens / parts / mesh.size("row"), length / parts, length)

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

    def gemm(self, m: Amount, n: float, k: Amount, part: Part, count: float = 1.0) -> Gemm:
        """``count`` products of activations with weights of a part, or of activations for them."""
        return Gemm(m, n, k, count, self.formats[part].gemm)
