"""A mixture-of-experts layer: gate, balancing, all-to-all, experts, all-to-all back; forward and backward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ....hardware.frozen import FrozenArrays, read_only
from ....hardware.precisions import BYTES
from ...loads.loads import Load, LoadModel
from ...mesh.axes import TENSOR
from ...routing.balancers.balancer import steps_of
from ...schedule.operation import Role, Task
from ...schedule.work import COUNT, COUNT_BYTES, Amount, Exchange, Gemm, Work
from ..builder import Program
from ..tensor_parallel.none import NoTensorParallel
from .ffn import ACTIVATION_FLOPS, FeedForward
from .rank_share import NORM_FLOPS, Local

OF_ROUTING = 12
"""Kernels of a choice of experts: softmax, the best of it, a mask and weights by expert, counts, and the loss that balances."""

OF_PERMUTATION = 6
"""Kernels that bring tokens into another order: the order itself, offsets, tokens, their weights, and copies of both."""


@dataclass(frozen=True, eq=False)
class Flow(FrozenArrays):
    """What a layer's load means for its operations: made once, used by the forward and the backward pass.

    One is equal to itself alone: passes that carry the same one are alike. Amounts are made when they are asked for.
    """

    tokens: Amount  # those that all local experts carry
    held: int  # local experts
    width: float  # inner elements of an expert
    hidden: float
    dispatch: Exchange
    combine: Exchange
    copies: Exchange | None = None  # weights of experts that other ranks take tokens of
    returned: Exchange | None = None  # their gradients

    @cached_property
    def mean(self) -> float:
        """Tokens in the mean over ranks."""
        return float(np.mean(self.tokens))

    @cached_property
    def rows(self) -> Amount:
        """Tokens of each local expert, taken as equal among them."""
        return self.tokens if self.held == 1 else read_only(self.tokens / self.held)

    @cached_property
    def inner(self) -> Amount:
        """Elements of the inner activations of all local experts."""
        return read_only(self.tokens * self.width)

    @cached_property
    def carried(self) -> Amount:
        """Elements of the tokens that all local experts carry."""
        return read_only(self.tokens * self.hidden)

    def lacking(self) -> Flow:
        """The same with amounts that are no numbers, each an array of its own: what is made of them shows where they go."""
        tokens, out, back, copied, again = (np.full(1, np.nan) for _ in range(5))
        return replace(
            self,
            tokens=tokens,
            dispatch=replace(self.dispatch, nbytes=out, received=back, pairs=None),
            combine=replace(self.combine, nbytes=back, received=out, pairs=None),
            copies=None if self.copies is None else replace(self.copies, nbytes=copied, received=None),
            returned=None if self.returned is None else replace(self.returned, nbytes=again, received=None),
        )


@dataclass(frozen=True)
class MixtureOfExperts:
    """Lowers the MoE half of a layer, for ranks that hold ``held`` experts of it each.

    Beside tensor parallelism each rank of tp has a part of every expert (``--expert-tensor split``): tokens come together before
    the gate, travel on each rank of tp, and partial answers are added up after the merge. Or experts stay whole and are
    spread over tp as well: each rank of tp then sends its own share of the tokens. In between, groups of tp do what tp does in
    the first case, each with its share of the tokens: ``routed`` is the tensor parallelism of what is routed, along the axes of
    ``cut``.
    """

    local: Local
    tensor: NoTensorParallel
    routed: NoTensorParallel
    cut: tuple[str, ...]
    loads: LoadModel
    all_to_all: str
    share: float = 1.0  # of the bytes of all copies of tokens that exchanges carry
    sorts: bool = False  # tokens that come from other ranks are brought together by expert, in a pass of its own

    @property
    def held(self) -> int:
        """Experts of one layer on a rank."""
        return self.loads.experts // self.loads.ranks

    @property
    def width(self) -> float:
        """Inner elements of an expert on a rank."""
        return self.local.model.expert_width / self.local.mesh.size(*self.cut)

    @property
    def ups(self) -> int:
        """Matrices from hidden to inner elements."""
        return self.local.model.matrices - 1

    def flow(self, load: Load) -> Flow:
        """The amounts that follow from a load."""
        element, axes = self.local.formats["expert"].compute, self.loads.axes
        token = self.share * float(self.local.model.hidden * BYTES[element])
        tokens = load.received
        out, back, even = (load.sent - load.kept) * token, (tokens - load.kept) * token, isinstance(tokens, float)
        there = None if load.pairs is None else load.pairs.astype(np.float64) * token
        again = None if there is None else there.swapaxes(1, 2)
        return Flow(
            tokens,
            self.held,
            self.width,
            float(self.local.model.hidden),
            dispatch=Exchange("all-to-all", self.all_to_all, axes, out, element, None if even else back, there),
            combine=Exchange("all-to-all", self.all_to_all, axes, back, element, None if even else out, again),
            **self._copies(load),
        )

    def _copies(self, load: Load) -> dict[str, Exchange]:
        """Exchanges of experts' weights, and of the gradients of copies, where a policy copies experts."""
        way, formats = self.loads.balancer.copies, self.local.formats["expert"]
        if way is None or self.loads.ranks == 1:
            return {}
        model, axes = self.local.model, self.loads.axes
        there, back = (
            model.matrices * model.hidden * self.width * BYTES[element]
            for element in (formats.compute, formats.gradient)
        )
        if way == "all-to-all":
            sent, held = load.copies_sent, load.copies_held
            return {
                "copies": Exchange(way, "linear", axes, sent * there, formats.compute, held * there),
                "returned": Exchange(way, "linear", axes, held * back, formats.gradient, sent * back),
            }
        every = load.copies_held + load.copies_sent / (self.loads.ranks - 1)  # a rank lacks none of its own
        return {
            "copies": Exchange("broadcast", "chain", axes, every * there, formats.compute),
            "returned": Exchange("reduce", "chain", axes, every * back, formats.gradient),
        }

    def forward(self, program: Program, layer: int, flow: Flow, balance: bool) -> None:
        """The MoE half of a layer with its residual; without ``balance`` the routing is known already (recomputation)."""
        local, at, top_k = self.local, Task(part="moe", layer=layer), self.loads.top_k
        add, sweep, stream = program.add, local.sweep, self._stream
        add(at.doing(Role.NORM), sweep("norm", local.stream, flops=NORM_FLOPS))
        self.routed.gather(program, local, at)
        add(at.doing(Role.PRODUCT, "gate"), self._gate())
        choice = sweep("gate", self._scores, reads=self._passes, writes=self._chosen)
        add(at.doing(Role.GATE_CHOICE), replace(choice, launches=OF_ROUTING))
        if balance:
            for found in steps_of(self.loads.balancer, self.loads.ranks, self.loads.tokens, top_k):
                task = at.doing(found.role, step=found.choice)
                add(task, self._over_axes(found.work), "balancing", f"moe.{found.name}")
            self._tell_counts(program, at)
            if flow.copies is not None:
                program.add(at.doing(Role.EXPERT_COPIES), flow.copies, "balancing")
        add(at.doing(Role.PERMUTE), replace(sweep("expert", stream * top_k, flops=0), launches=OF_PERMUTATION))
        self._exchange(program, at.doing(Role.DISPATCH), flow.dispatch)
        self._sort(program, at.doing(Role.EXPERT_SORT, "up"), flow)
        add(at.doing(Role.PRODUCT, "up"), self._product(flow, self.ups * self.width, local.model.hidden))
        add(at.doing(Role.ACTIVATION), sweep("expert", flow.inner, reads=self.ups, flops=ACTIVATION_FLOPS))
        add(at.doing(Role.PRODUCT, "down"), self._product(flow, local.model.hidden, self.width))
        self._sort(program, at.doing(Role.EXPERT_SORT, "down"), flow)
        self._exchange(program, at.doing(Role.COMBINE), flow.combine)
        merge = sweep("expert", stream, reads=top_k + 1, flops=2 * top_k)
        add(at.doing(Role.MERGE), replace(merge, launches=OF_PERMUTATION))
        self._shared(program, layer)
        self.routed.reduce(program, local, at)
        self._collect(program, at.doing(Role.TOKEN_COLLECT))

    def backward(self, program: Program, layer: int, flow: Flow) -> None:
        """Gradients of the MoE half: the tokens' way back and forth again, then experts and gate."""
        local, at, top_k = self.local, Task(part="moe", layer=layer), self.loads.top_k
        add, sweep, stream = program.add, local.sweep, self._stream
        self.routed.reduce_backward(program, local, at)
        self._shared_backward(program, layer)
        merge = sweep("expert", stream * top_k, reads=2, flops=2)
        add(at.doing(Role.MERGE, gradient="input"), replace(merge, launches=OF_PERMUTATION))
        self._exchange(program, at.doing(Role.COMBINE, gradient="input"), flow.dispatch)
        self._sort(program, at.doing(Role.EXPERT_SORT, "down", "input"), flow)
        add(at.doing(Role.PRODUCT, "down", "input"), self._product(flow, self.width, local.model.hidden))
        add(at.doing(Role.PRODUCT, "down", "weight"), self._weights(flow, self.width, local.model.hidden))
        add(
            at.doing(Role.ACTIVATION, gradient="input"),
            sweep("expert", flow.inner, reads=1 + self.ups, writes=self.ups, flops=ACTIVATION_FLOPS),
        )
        add(at.doing(Role.PRODUCT, "up", "input"), self._product(flow, local.model.hidden, self.ups * self.width))
        add(at.doing(Role.PRODUCT, "up", "weight"), self._weights(flow, local.model.hidden, self.ups * self.width))
        if flow.returned is not None:
            program.add(at.doing(Role.EXPERT_COPIES, gradient="weight"), flow.returned, "balancing")
        self._sort(program, at.doing(Role.EXPERT_SORT, "up", "input"), flow)
        self._exchange(program, at.doing(Role.DISPATCH, gradient="input"), flow.combine)
        permute = sweep("expert", stream, reads=top_k, flops=top_k)
        add(at.doing(Role.PERMUTE, gradient="input"), replace(permute, launches=OF_PERMUTATION))
        choice = sweep("gate", self._scores, reads=self._chosen)
        add(at.doing(Role.GATE_CHOICE, gradient="input"), replace(choice, launches=OF_ROUTING))
        add(at.doing(Role.PRODUCT, "gate", "input"), replace(self._gate(), n=local.model.hidden, k=local.model.experts))
        add(
            at.doing(Role.PRODUCT, "gate", "weight"),
            replace(self._gate(), m=local.model.hidden, k=float(self.loads.tokens), onto=local.onto("gate")),
        )
        self.routed.gather_backward(program, local, at)
        self._collect(program, at.doing(Role.TOKEN_COLLECT, gradient="input"))
        add(at.doing(Role.NORM, gradient="input"), sweep("norm", local.stream, reads=3, flops=NORM_FLOPS))

    def _tell_counts(self, program: Program, at: Task) -> None:
        """How many tokens come, to each rank; where experts are copied all ranks have to know where all tokens go."""
        axes, each = self.loads.axes, float(COUNT_BYTES * self.loads.experts)
        if self.loads.balancer.copies is None:
            self._exchange(program, at.doing(Role.TOKEN_COUNTS), Exchange("all-to-all", "linear", axes, each, COUNT))
        else:
            gathered = Exchange("all-gather", "ring", axes, each * self.loads.ranks, COUNT)
            self._exchange(program, at.doing(Role.EXPERT_LOADS), gathered)

    def activation_again(self, program: Program, layer: int, flow: Flow) -> None:
        """Between the products of experts."""
        sweep = self.local.sweep("expert", flow.inner, reads=self.ups, flops=ACTIVATION_FLOPS)
        program.add(Task(part="moe", layer=layer).doing(Role.ACTIVATION), sweep)

    def shared_again(self, program: Program, layer: int) -> None:
        """Shared experts."""
        self._shared(program, layer)

    @property
    def _apart(self) -> tuple[str, ...]:
        """The axes of tensor parallelism whose ranks route tokens of their own."""
        return tuple(axis for axis in self.loads.axes if axis in TENSOR)

    @property
    def _stream(self) -> float:
        """Elements of the tokens that the rank routes."""
        return float(self.loads.tokens * self.local.model.hidden)

    @property
    def _scores(self) -> float:
        return float(self.loads.tokens * self.local.model.experts)

    @property
    def _chosen(self) -> float:
        """What is written for each of the gate's scores: a choice and its weight for top_k of them."""
        return 2 * self.loads.top_k / self.local.model.experts

    @property
    def _passes(self) -> int:
        """How often the scores are read: once for each choice, or once for all groups of experts (M6-T, Yang et al. 2021)."""
        return 1 if self.local.plan.prototypes else self.loads.top_k

    def _gate(self) -> Gemm:
        """The product that gives every token a score for every expert."""
        model = self.local.model
        return Gemm(float(self.loads.tokens), model.experts, model.hidden, 1.0, self.local.formats["gate"].compute)

    def _over_axes(self, work: Work) -> Work:
        """A balancing policy's exchange, over all axes that experts are spread over."""
        return replace(work, axes=self.loads.axes) if isinstance(work, Exchange) else work

    def _exchange(self, program: Program, task: Task, exchange: Exchange) -> None:
        if self.loads.ranks > 1:
            program.add(task, exchange, "all_to_all")

    def _sort(self, program: Program, task: Task, flow: Flow) -> None:
        """Tokens of all local experts come sender by sender, and products want them expert by expert."""
        if self.sorts and self.held > 1 and self.loads.ranks > 1:
            program.add(task, replace(self.local.sweep("expert", flow.carried, flops=0), launches=OF_PERMUTATION))

    def _collect(self, program: Program, task: Task) -> None:
        """Where ranks of tp route tokens of their own, and these are not cut by sequence parallelism, they tell each other."""
        if self._apart and not self.local.plan.sequence_parallel:
            element = self.local.formats["norm"].compute
            exchange = Exchange("all-gather", "ring", self._apart, self.local.whole * BYTES[element], element)
            program.add(task, exchange, "tensor_parallel")

    def _shared(self, program: Program, layer: int) -> None:
        """Shared experts see every token, and so does a dense FFN beside, which has a norm of its own."""
        width = self.local.model.width_beside
        if not width:
            return
        at = Task(part="shared experts", layer=layer)
        if self.local.model.dense_beside:
            program.add(at.doing(Role.NORM), self.local.sweep("norm", self.local.stream, flops=NORM_FLOPS))
        if self._own_input:
            self.tensor.gather(program, self.local, at)
        FeedForward(self.local, self.tensor).inner(program, at, width)
        if self._apart:
            self.tensor.reduce(program, self.local, at)

    def _shared_backward(self, program: Program, layer: int) -> None:
        width = self.local.model.width_beside
        if not width:
            return
        at = Task(part="shared experts", layer=layer)
        if self._apart:
            self.tensor.reduce_backward(program, self.local, at)
        FeedForward(self.local, self.tensor).inner_backward(program, at, width, again=self._own_input)
        if self._own_input:
            self.tensor.gather_backward(program, self.local, at)
        if self.local.model.dense_beside:
            program.add(at.doing(Role.NORM, gradient="input"), self.local.norm_gradient())

    @property
    def _own_input(self) -> bool:
        """Whether what sees every token has its input from elsewhere than the routed experts."""
        return bool(self._apart) or self.local.model.dense_beside > 0

    def _product(self, flow: Flow, n: float, k: float) -> Gemm:
        """The product of every local expert with the tokens that it carries."""
        made = self.local.gemm(flow.rows, n, k, "expert", float(self.held))
        return replace(made, launches=float(self.held))

    def _weights(self, flow: Flow, rows: float, columns: float) -> Gemm:
        """The gradient of every local expert's weights."""
        made = self.local.weight_gradient(float(rows), columns, flow.rows, "expert", float(self.held))
        return replace(made, launches=float(self.held))
