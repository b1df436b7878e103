"""A mixture-of-experts layer: gate, balancing, all-to-all, experts, all-to-all back; forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...hardware.precisions import BYTES
from ..loads import Load, LoadModel
from ..schedule import COUNT, COUNT_BYTES, Amount, Exchange, Gemm
from .dense import NORM_FLOPS, Dense
from .program import Program

ACTIVATION_FLOPS = 8
"""FLOPs an element of the experts' activation; it is bound by memory."""


@dataclass(frozen=True)
class Flow:
    """What a layer's load means for its operations: made once, used by the forward and the backward pass."""

    rows: Amount  # tokens of each local expert, taken as equal among them
    inner: Amount  # elements of the inner activations of all local experts
    dispatch: Exchange
    combine: Exchange


@dataclass(frozen=True)
class Experts:
    """Lowers the MoE half of a layer, for ranks that hold ``local`` experts of it each."""

    dense: Dense
    loads: LoadModel
    all_to_all: str

    @property
    def local(self) -> int:
        """Experts of one layer on a rank."""
        return self.loads.experts // self.loads.ranks

    def flow(self, load: Load) -> Flow:
        """The amounts that follow from a load."""
        element = self.dense.formats["expert"].compute
        token = float(self.dense.model.hidden * BYTES[element])
        out, back, even = load.sent * token, load.received * token, isinstance(load.received, float)
        there = None if load.pairs is None else load.pairs.astype(np.float64) * token
        again = None if there is None else there.swapaxes(1, 2)
        return Flow(
            rows=load.received / self.local,
            inner=load.received * float(self.dense.model.ffn_hidden),
            dispatch=Exchange("all-to-all", self.all_to_all, ("ep",), out, element, None if even else back, there),
            combine=Exchange("all-to-all", self.all_to_all, ("ep",), back, element, None if even else out, again),
        )

    def forward(self, program: Program, layer: int, flow: Flow, balance: bool = True) -> None:
        """The MoE half of a layer with its residual; without ``balance`` the routing is known already (recomputation)."""
        model, tokens, at, top_k = self.dense.model, self.dense.tokens, f"l{layer}.moe", self.loads.top_k
        add, sweep, stream = program.add, self.dense.sweep, self.dense.stream
        chosen = 2 * top_k / model.experts  # per gate score, a choice and its weight are written
        add(f"{at}.norm", sweep("norm", stream, flops=NORM_FLOPS))
        add(f"{at}.gate", Gemm(float(tokens), model.experts, model.hidden, 1.0, self.dense.formats["gate"].compute))
        add(f"{at}.top_k", sweep("gate", float(tokens * model.experts), writes=chosen))
        if balance:
            for name, work in self.loads.balancer.operations(self.loads.ranks, tokens, top_k):
                add(f"{at}.{name}", work, "balancing")
            counts = Exchange("all-to-all", "linear", ("ep",), float(COUNT_BYTES * self.loads.experts), COUNT)
            self._exchange(program, f"{at}.counts", counts)
        add(f"{at}.permute", sweep("expert", stream * top_k, flops=0))
        self._exchange(program, f"{at}.dispatch", flow.dispatch)
        add(f"{at}.up", self._product(flow, model.ffn_hidden, model.hidden))
        add(f"{at}.activation", sweep("expert", flow.inner, flops=ACTIVATION_FLOPS))
        add(f"{at}.down", self._product(flow, model.hidden, model.ffn_hidden))
        self._exchange(program, f"{at}.combine", flow.combine)
        add(f"{at}.merge", sweep("expert", stream, reads=top_k + 1, flops=2 * top_k))

    def backward(self, program: Program, layer: int, flow: Flow) -> None:
        """Gradients of the MoE half: the tokens' way back and forth again, then experts and gate."""
        model, tokens, at, top_k = self.dense.model, self.dense.tokens, f"l{layer}.moe", self.loads.top_k
        add, sweep, stream = program.add, self.dense.sweep, self.dense.stream
        chosen = 2 * top_k / model.experts
        add(f"{at}.merge.grad", sweep("expert", stream * top_k, reads=2, flops=2))
        self._exchange(program, f"{at}.combine.grad", flow.dispatch)
        add(f"{at}.down.dgrad", self._product(flow, model.ffn_hidden, model.hidden))
        add(f"{at}.down.wgrad", self._weights(flow, model.ffn_hidden, model.hidden))
        add(f"{at}.activation.grad", sweep("expert", flow.inner, reads=2, flops=ACTIVATION_FLOPS))
        add(f"{at}.up.dgrad", self._product(flow, model.hidden, model.ffn_hidden))
        add(f"{at}.up.wgrad", self._weights(flow, model.hidden, model.ffn_hidden))
        self._exchange(program, f"{at}.dispatch.grad", flow.combine)
        add(f"{at}.permute.grad", sweep("expert", stream, reads=top_k, flops=top_k))
        add(f"{at}.top_k.grad", sweep("gate", float(tokens * model.experts), reads=chosen))
        self.dense.backward_gemms(program, f"{at}.gate", model.experts, model.hidden, "gate")
        add(f"{at}.norm.grad", sweep("norm", stream, reads=3, flops=NORM_FLOPS))

    def _exchange(self, program: Program, name: str, exchange: Exchange) -> None:
        if self.loads.ranks > 1:
            program.add(name, exchange, "all_to_all")

    def _product(self, flow: Flow, n: int, k: int) -> Gemm:
        """The product of every local expert with the tokens that it carries."""
        return Gemm(flow.rows, n, k, float(self.local), self.dense.formats["expert"].compute)

    def _weights(self, flow: Flow, rows: int, columns: int) -> Gemm:
        """The gradient of every local expert's weights."""
        return Gemm(float(rows), columns, flow.rows, float(self.local), self.dense.formats["expert"].compute)
