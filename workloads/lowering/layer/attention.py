"""Attention of a layer with its norm and residual, forward and backward, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....hardware.precisions import Precision
from ...mesh.axes import CONTEXT
from ...model.layers import Sight
from ...schedule.operation import ModelPart, Operand, Role, Task
from ...schedule.work import FusedAttention, Gemm, Sweep
from ..builder import Program
from ..tensor_parallel.none import Cut, NoTensorParallel
from .adapters import adapter
from .ffn import ACTIVATION_FLOPS
from .rank_share import NORM_FLOPS, Local


@dataclass(frozen=True)
class AttentionLayer:
    """Lowers attention for one stack; ``source`` is the encoder's part where a decoder attends to it.

    ``sight`` says which keys a query meets.
    """

    local: Local
    tensor: NoTensorParallel
    part: ModelPart = "attention"
    source: Local | None = None
    sight: Sight = Sight()

    def forward(self, program: Program, layer: int) -> None:
        """Pre-norm attention with its residual."""
        local, at = self.local, self._at(layer)
        program.add(at.doing(Role.NORM), local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, at.doing(Role.NORM))
        self.tensor.gather(program, local, at)
        if self.source:
            self.tensor.gather(program, self.source, replace(at, operand="source"))
        for weight, rows, n, k, cut in self._inputs():
            self.tensor.product(program, rows, replace(at, operand=weight), n, k, "attention", cut)
            if beside := adapter(local, weight):
                beside.forward(program, layer, n, k)
        self._norm_again(program, at)
        self.core(program, layer)
        if local.model.gated_attention:
            program.add(
                at.doing(Role.ACTIVATION), local.sweep("attention", self._context, reads=2, flops=ACTIVATION_FLOPS)
            )
        self.tensor.product(
            program, local, replace(at, operand="out"), local.model.hidden, self._values, "attention", "row"
        )
        if beside := adapter(local, "out"):
            beside.forward(program, layer, local.model.hidden, self._values)
        self.tensor.reduce(program, local, at)
        program.add(at.doing(Role.RESIDUAL), local.residual())

    def core(self, program: Program, layer: int) -> None:
        """Queries meet keys, and values are weighted with what comes of it."""
        self.local.plan.kernel.forward(program, self._at(layer), self)

    def products_again(self, program: Program, layer: int) -> None:
        """What is between the products that are kept, and those that are not: of keys, and of the output."""
        local, at = self.local, self._at(layer)
        program.add(at.doing(Role.NORM), local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, at.doing(Role.NORM))
        self.tensor.gather(program, local, at)
        keys = max(local.model.key_value_heads, local.width) * self.sizes[0]
        self.tensor.product(
            program, local, replace(at, operand="keys"), keys, local.model.hidden, "attention", "column"
        )
        self.tensor.product(
            program, local, replace(at, operand="out"), local.model.hidden, self._values, "attention", "row"
        )
        program.add(at.doing(Role.RESIDUAL), local.residual())

    def norm_again(self, program: Program, layer: int) -> None:
        """The norm before it."""
        local, at = self.local, self._at(layer)
        program.add(at.doing(Role.NORM), local.sweep("norm", local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, local, at.doing(Role.NORM))

    def latent_products_again(self, program: Program, layer: int) -> None:
        """Products behind the narrow ones of latent attention; those of the heads' own queries, keys and values."""
        at = self._at(layer)
        for weight, rows, n, k, cut in self._inputs():
            if cut == "column" and self.local.model.latent:
                self.tensor.product(program, rows, replace(at, operand=weight), n, k, "attention", cut)

    def backward(self, program: Program, layer: int) -> None:
        """The same in reverse: two products for each of the forward pass."""
        local, at = self.local, self._at(layer)
        self.tensor.reduce_backward(program, local, at)
        self.tensor.product_backward(
            program, local, replace(at, operand="out"), local.model.hidden, self._values, "attention", "row"
        )
        if beside := adapter(local, "out"):
            beside.backward(program, layer, local.model.hidden, self._values)
        if local.model.gated_attention:
            gates = local.sweep("attention", self._context, reads=3, writes=2, flops=ACTIVATION_FLOPS)
            program.add(at.doing(Role.ACTIVATION, gradient="input"), gates)
        local.plan.kernel.backward(program, at, self)
        self._norm_backward(program, at)
        self.tensor.gather_again(program, local, at)
        if self.source:
            self.tensor.gather_again(program, self.source, replace(at, operand="source"))
        for weight, rows, n, k, cut in self._inputs():
            self.tensor.product_backward(program, rows, replace(at, operand=weight), n, k, "attention", cut)
            if beside := adapter(local, weight):
                beside.backward(program, layer, n, k)
        self.tensor.gather_backward(program, local, at)
        if self.source:
            self.tensor.gather_backward(program, self.source, replace(at, operand="source"))
        program.add(at.doing(Role.NORM, gradient="input"), local.norm_gradient())
        self.tensor.norm(program, local, at.doing(Role.NORM, gradient="input"))

    def _at(self, layer: int) -> Task:
        return Task(part=self.part, layer=layer)

    # --- what kernels ask (:class:`~athanor.workloads.attention_kernels.AttentionCore`) --------------------------------------

    def heads(self, m: float, n: float, k: float) -> Gemm:
        """A product for every head and sequence of the rank."""
        return Gemm(m, n, k, self._count, self.precision)

    def softmax(self, backward: bool) -> Sweep:
        """A pass over all scores of the rank: operations apart work out what the mask then hides."""
        return self.local.softmax(self._count * self.queries * self.keys, backward)

    def fused(self, products: int, parts: int = 1, kernel: str = "") -> FusedAttention:
        """One kernel of so many products of the rank's queries with one of so many parts of the keys, by its name.

        Under a mask all parts, and all ranks along cp, have equally much of what it leaves (zigzag).
        """
        size, value = self.sizes
        share = self.sight.share(self.queries * self.parts, self.keys)
        return FusedAttention(
            self.queries, self.keys / parts, size, value, self._count, products, self.precision, share, kernel
        )

    @property
    def precision(self) -> Precision:
        """The format that attention computes in."""
        return self.local.formats["attention"].compute

    @property
    def around(self) -> tuple[str, ...]:
        """The axes that a sequence is cut over."""
        return self.local.mesh.having(CONTEXT)

    @property
    def parts(self) -> int:
        """Ranks that a sequence is cut over."""
        return self.local.mesh.size(*CONTEXT)

    @property
    def keys(self) -> float:
        """Keys that a query meets in all."""
        return self.source.keys if self.source else self.local.keys

    @property
    def queries(self) -> float:
        """Queries of the rank in a sequence."""
        return self.local.queries

    @property
    def sizes(self) -> tuple[float, float]:
        """Elements of a head's query (and key), and of its value."""
        return float(self.local.model.query_size), float(self.local.model.value_size)

    @property
    def key_value_elements(self) -> tuple[float, float]:
        """Elements of the rank's keys, and of its values, of all its heads and tokens."""
        local = self.local
        heads = max(1.0, local.model.key_value_heads / local.width)
        return local.tokens * heads * local.model.query_size, local.tokens * heads * local.model.value_size

    @property
    def causal(self) -> bool:
        """Whether a token sees none that come after it."""
        return self.sight.causal

    @property
    def _context(self) -> float:
        """Elements of the rank's context: values of all its heads and tokens."""
        return self.local.tokens * self._values / self.local.width

    def _norm_again(self, program: Program, at: Task) -> None:
        """Norms of queries and keys, where the model has them: one kernel."""
        if self.local.model.query_key_norm != "none":
            program.add(at.doing(Role.NORM, "queries"), self.local.sweep("norm", self._normed, flops=NORM_FLOPS))

    def _norm_backward(self, program: Program, at: Task) -> None:
        """Their gradients."""
        if self.local.model.query_key_norm != "none":
            sweep = self.local.sweep("norm", self._normed, reads=2, flops=NORM_FLOPS)
            program.add(at.doing(Role.NORM, "queries", "input"), sweep)

    @property
    def _normed(self) -> float:
        """Elements of the rank's queries and keys."""
        source = self.source or self.local
        keys = source.tokens * max(1.0, self.local.model.key_value_heads / self.local.width) * self.sizes[0]
        return self.queries * self._count * self.sizes[0] + keys

    @property
    def _count(self) -> float:
        """Heads and sequences of the rank."""
        return self.local.model.heads / self.local.width * self.local.sequences

    @property
    def _values(self) -> float:
        """Elements of all heads' values together."""
        return float(self.local.model.heads * self.local.model.value_size)

    def _inputs(self) -> list[tuple[Operand, Local, float, float, Cut]]:
        """Products that make queries, keys and values: (weight, tokens, columns, rows, cut)."""
        model, local, h = self.local.model, self.local, float(self.local.model.hidden)
        query, value = self.sizes
        key_values = max(model.key_value_heads, local.width) * (query + value)
        if model.latent:
            at = model.latent
            queries: list[tuple[Operand, Local, float, float, Cut]] = (
                [("queries", local, model.heads * query, h, "column")]
                if at.query_rank is None
                else [
                    ("queries.narrow", local, at.query_rank, h, "none"),
                    ("queries", local, model.heads * query, at.query_rank, "column"),
                ]
            )
            return [
                *queries,
                ("values.narrow", local, at.key_value_rank + at.rotary, h, "none"),
                ("values", local, model.heads * (at.plain + value), at.key_value_rank, "column"),
            ]
        if self.source:
            return [
                ("queries", local, model.heads * query, h, "column"),
                ("values", self.source, key_values, h, "column"),
            ]
        gates = model.heads * value * model.gated_attention
        return [("qkv", local, model.heads * query + gates + key_values, h, "column")]
