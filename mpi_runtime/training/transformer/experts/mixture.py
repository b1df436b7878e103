"""The half of a layer that has experts, on one rank: a norm, the gate, the way of tokens to experts and back, a residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .....workloads.routing.balancers.balancer import Balancer
from .....workloads.routing.balancers.copying import Copying, spread
from .....workloads.routing.balancers.expert_choice import picked
from .....workloads.routing.balancers.past import BEGINNING, Past
from .....workloads.schedule.operation import Does, Role, Task
from .....workloads.schedule.work import Exchange
from ....messages.transport import Transport
from ...moe_layer import MoeLayer, Steps
from ...token_routing import Routing, Tells
from ..halves import Half, Shared
from ..messages import Array, Message
from ..weights.shards import of_expert
from . import gate
from .beside import SharedExperts
from .copies import ExpertCopies
from .gate_training import GateTraining
from .local_experts import LocalExperts

Index = gate.Index

MOVING = frozenset(
    {
        Role.TOKENS_WANTED,
        Role.TOKENS_ACCEPTED,
        Role.TOKENS_REFUSED,
        Role.ROOM_LEFT,
        Role.TOKEN_COUNTS,
        Role.EXPERT_LOADS,
        Role.EXPERT_COPIES,
        Role.DISPATCH,
        Role.COMBINE,
    }
)
"""Exchanges of tokens, or of numbers of them."""

BESIDE = "shared experts"
"""The part of the model beside the routed experts."""


class Choosing(Protocol):
    """Who chooses the experts of tokens: a gate that learns, or a router that a plan names."""

    def __call__(self, layer: int, scores: Array) -> Index:
        """Experts ``[tokens, top_k]`` that this rank's tokens of a layer want."""


class Telling(Protocol):
    """Who keeps what ranks told each other of a layer."""

    def __call__(self, layer: int, wanted: Index, carried: Index, experts: Index | None = None) -> None:
        """Tokens of the group wanted ``[choice, rank]`` and carried ``[rank]``, and those that want each ``[choice, expert]``."""


def _unheard(layer: int, wanted: Index, carried: Index, experts: Index | None = None) -> None:
    """Nobody keeps it."""


@dataclass(frozen=True)
class Routes:
    """What the layers of a micro-batch know of routing: who chooses, the policy that balances, and who carries tokens.

    ``told`` takes what ranks told each other of a layer; they need not where all that a group wants ``[choice, sender,
    receiver]`` is ``known``.
    """

    transport: Transport
    balancer: Balancer
    tells: Tells
    choose: Choosing
    past: Callable[[int], Past] = lambda layer: BEGINNING
    told: Telling = _unheard
    known: Callable[[int], Index | None] = lambda layer: None
    training: GateTraining = field(default_factory=GateTraining)


class LocalMixture(Half):
    """Gate and experts, and beside them, where the model has it, a part that every token passes."""

    operator = "moe"
    products_of = ("gate",)

    def __init__(self, shared: Shared, layer: int | None, routes: Routes) -> None:
        super().__init__(shared, layer)
        assert layer is not None
        self.number, self.routes = layer, routes
        self.tokens: MoeLayer | None = None
        self._experts: LocalExperts | None = None
        self.copies: ExpertCopies | None = None
        self._scores = self._chances = self._choice_gradient = np.zeros((0, 0))
        self._collected: Array | None = None  # answers, and gradients, of all tokens where ranks of tp route their own
        self._collected_back: Array | None = None
        self._apart = shared.place.routes_over is not None
        self.beside = (
            SharedExperts(
                shared, layer, self._apart, lambda: self.rows, super()._first_source, lambda: self._second_gradient()
            )
            if shared.sizes.hidden_beside
            else None
        )
        self.computing |= {
            (Role.GATE_CHOICE, None, None): self._choose,
            (Role.TOKENS_DROPPED, None, None): lambda step: None,  # with the counts, which say what there is
            (Role.TOKENS_DEALT, None, None): lambda step: self._layer.deal(step),
            (Role.PERMUTE, None, None): self._permute,
            (Role.EXPERT_SORT, "up", None): lambda step: None,  # experts find their tokens by number
            (Role.EXPERT_SORT, "down", None): lambda step: None,
            (Role.EXPERT_SORT, "down", "input"): lambda step: None,
            (Role.EXPERT_SORT, "up", "input"): lambda step: None,
            (Role.ACTIVATION, None, None): lambda step: self._of_rank.activate(),
            (Role.MERGE, None, None): self._merge,
            (Role.MERGE, None, "input"): self._merge_back,
            (Role.ACTIVATION, None, "input"): lambda step: self._of_rank.activate_gradient(),
            (Role.PERMUTE, None, "input"): lambda step: self._layer.permute_gradient(),
            (Role.GATE_CHOICE, None, "input"): self._choose_back,
        }
        self.exchanging |= {
            (Role.TOKEN_COLLECT, None, None): self._collect,
            (Role.TOKEN_COLLECT, None, "input"): self._collect_back,
        }
        self._multiplying: dict[Does, Callable[[], None]] = {
            (Role.PRODUCT, "up", None): self._up,
            (Role.PRODUCT, "down", None): self._down,
            (Role.PRODUCT, "down", "input"): self._down_dgrad,
            (Role.PRODUCT, "down", "weight"): lambda: self._of_rank.down_wgrad(),
            (Role.PRODUCT, "up", "input"): self._up_dgrad,
            (Role.PRODUCT, "up", "weight"): lambda: self._of_rank.up_wgrad(),
        }

    # --- operations -------------------------------------------------------------------------------------------------------

    def compute(self, task: Task) -> None:
        """Do what an operation computes."""
        if task.part == BESIDE:
            assert self.beside is not None, "the model has nothing beside experts"
            self.beside.compute(task)
        elif task.role is Role.GATE_CHOICE and task.recomputed:
            self._chances = gate.chances(self.products["gate"].c)  # tokens go where they went
            self._layer.tokens = self.products["gate"].a
        elif task.role is Role.PRODUCT and task.does in self._multiplying:
            self._multiplying[task.does]()
        else:
            super().compute(task)

    def message(self, task: Task) -> Message:
        """The rank's side of an exchange."""
        if task.part == BESIDE:
            assert self.beside is not None, "the model has nothing beside experts"
            return self.beside.message(task)
        return super().message(task)

    def moves(self, task: Task) -> bool:
        """Whether an exchange brings tokens, or numbers of them, whose sizes ranks tell each other."""
        return task.part == "moe" and task.role in MOVING

    def move(self, task: Task, stream: str, exchange: Exchange) -> Steps:
        """Such an exchange."""
        if of_choice := self._layer.balancing.get(task.role):
            yield from of_choice(task.step or 0, stream, exchange)
        else:
            yield from self._moving[task.does](stream, exchange)

    @property
    def _moving(self) -> dict[Does, Callable[[str, Exchange], Steps]]:
        return {
            (Role.TOKEN_COUNTS, None, None): self._count,
            (Role.EXPERT_LOADS, None, None): self._tell_loads,
            (Role.EXPERT_COPIES, None, None): lambda *way: self._of_copies.send(*way),
            (Role.EXPERT_COPIES, None, "weight"): lambda *way: self._of_copies.give_back(*way),
            (Role.DISPATCH, None, None): self._layer.dispatch,
            (Role.COMBINE, None, None): self._layer.combine,
            (Role.COMBINE, None, "input"): self._layer.combine_gradient,
            (Role.DISPATCH, None, "input"): self._layer.dispatch_gradient,
        }

    @property
    def _picks(self) -> bool:
        """Whether experts pick tokens."""
        return self.routes.balancer.picks

    @property
    def _layer(self) -> MoeLayer:
        assert self.tokens is not None, "nothing has been chosen"
        return self.tokens

    @property
    def _of_rank(self) -> LocalExperts:
        assert self._experts is not None, "no tokens have come"
        return self._experts

    # --- forward ----------------------------------------------------------------------------------------------------------

    def _mine(self, rows: Array) -> Array:
        """Of rows of all tokens, those that this rank routes: all, or its share of them beside ``tp``."""
        over = None if self.place.sequence_parallel else self.place.routes_over
        return rows if over is None else rows[self.place.part(len(rows), over)]

    def _first_source(self) -> Array:
        return self._mine(super()._first_source())

    def _choose(self, step: int) -> None:
        scores, place = self.products["gate"].c, self.place
        self._chances = gate.chances(scores)
        wanted = self.routes.choose(self.number, scores)
        local = len(place.local_experts(self.shared.sizes.experts))
        routing = Routing(wanted, place.expert_ranks, local, place.expert_rank)
        if self._picks:
            routing.pick(picked(self._chances, wanted.shape[1]))
        nothing = np.zeros(routing.expert.shape, dtype=scores.dtype)
        self.tokens = MoeLayer(self.routes.transport, routing, self.products["gate"].a, nothing)
        self._collected = self._collected_back = None

    def _count(self, stream: str, exchange: Exchange) -> Steps:
        """Ranks whose policy has to know what others want tell each other first; then how many tokens come."""
        if self.routes.tells is Tells.WITH_COUNTS:
            if (known := self.routes.known(self.number)) is None:
                mine = self._layer.routing.by_choice()
                everyone = np.empty((self.place.expert_ranks, *mine.shape), dtype=np.int64)
                yield [self.routes.transport.group(stream, exchange).comm.Iallgather(mine, everyone)]
                known = everyone.swapaxes(0, 1)
            self._assign(known)
        yield from self._layer.counts(stream, exchange)

    def _tell_loads(self, stream: str, exchange: Exchange) -> Steps:
        """All ranks learn what each wants of every expert; where experts are copied, and which copy takes a token, follows."""
        transport, routing, balancer = self.routes.transport, self._layer.routing, self.routes.balancer
        assert isinstance(balancer, Copying)
        cells = np.zeros((transport.cells(stream, exchange), routing.ranks * routing.local), dtype=np.int64)
        cells[transport.home(stream, exchange)] = routing.by_expert()
        yield from transport.play(stream, exchange, cells)
        everyone = cells[transport.homes(stream, exchange)]
        past = self.routes.past(self.number)
        held = balancer.held(everyone.sum(axis=0), routing.ranks, past)
        routing.spread(everyone, held, balancer.stay)
        self.copies = ExpertCopies(transport, held, routing.local, routing.me, self._weights_of, self._gradients_of)
        carried = spread(everyone, held, balancer.stay).sum(axis=(0, 2))
        wanted = everyone.sum(axis=0).reshape(1, routing.ranks, -1).sum(axis=2)
        self.routes.told(self.number, wanted, carried, everyone.sum(axis=0)[None])

    def _weights_of(self, expert: int) -> tuple[Array, Array]:
        """Both matrices of an expert that lives here."""
        rounded = self.shared.rounded("expert")
        up, down = (rounded(self.shared.weights[each]) for each in of_expert(self.number, expert))
        return up, down

    def _gradients_of(self, expert: int) -> tuple[Array, Array]:
        up, down = (self.shared.gradients[each] for each in of_expert(self.number, expert))
        return up, down

    @property
    def _of_copies(self) -> ExpertCopies:
        assert self.copies is not None, "nobody has told where experts are copied"
        return self.copies

    def _permute(self, step: int) -> None:
        layer = self._layer
        if self.place.expert_ranks == 1 and self.routes.tells is Tells.WITH_COUNTS:
            self._assign(layer.routing.by_choice()[:, None])
        layer.weights = gate.weights(self._chances, layer.routing.expert, self._picks)
        layer.permute()

    def _assign(self, everyone: Index) -> None:
        """Let the policy decide, from what all ranks of the group want ``[choice, sender, receiver]``."""
        carried = self._layer.routing.settle(self.routes.balancer, everyone, self.routes.past(self.number))
        self.routes.told(self.number, everyone.sum(axis=1), carried)

    def _up(self) -> None:
        sizes, shared, layer = self.shared.sizes, self.shared, self._layer
        rows = layer.rows_of_experts()
        if self.copies is not None:
            self.copies.begin()
        mine = self._held()
        ups, downs = ([weights[which] for weights, _ in mine] for which in (0, 1))
        of_ups, of_downs = ([totals[which] for _, totals in mine] for which in (0, 1))
        filled = [rows[slot] for slot in self._filled()]
        self._experts = LocalExperts(
            ups, downs, of_ups, of_downs, sizes.gated, filled, layer.arrived, shared.rounded("expert")
        )
        self._experts.up_product()

    def _filled(self) -> list[int]:
        """Slots that have an expert."""
        slots = range(self._layer.routing.slots)
        return [each for each in slots if self.copies is None or self.copies.held[self.copies.me, each] >= 0]

    def _held(self) -> list[tuple[tuple[Array, Array], tuple[Array, Array]]]:
        """(weights, sums of gradients) of the experts that this rank takes tokens of."""
        if self.copies is not None:
            return [found for slot in self._filled() if (found := self.copies.of_slot(slot)) is not None]
        local = self.place.local_experts(self.shared.sizes.experts)
        return [(self._weights_of(expert), self._gradients_of(expert)) for expert in local]

    def _down(self) -> None:
        self._layer.answers = self._of_rank.down_product()

    def _merge(self, step: int) -> None:
        self._layer.merge()
        self._collected = self._reduced = None

    @property
    def _over(self) -> str:
        return self.place.expert_cut or "tp"

    def _answer(self) -> Array:
        merged = self._layer.merged if self._collected is None else self._collected
        return merged if self.beside is None or self._apart else merged + self.beside.answer

    @property
    def result(self) -> Array:
        """What the half adds to the residual stream; what is beside and has exchanges of its own comes to it here."""
        found = super().result
        return found + self.beside.answer if self.beside and self._apart else found

    def _collect(self, step: int) -> Message:
        def take(parts: Array) -> None:
            self._collected, self._reduced = parts.reshape(-1, parts.shape[-1]), None

        assert self.place.routes_over is not None
        mine = self._layer.merged if self._reduced is None else self._reduced
        return Message("all-gather", (self.place.routes_over,), mine, take)

    def forget(self) -> None:
        """Rows of others' tokens are kept for the gate's way back."""

    # --- backward ---------------------------------------------------------------------------------------------------------

    def _merge_back(self, step: int) -> None:
        layer = self._layer
        layer.gradient = self._mine(self._second_gradient())
        layer.merge_gradient()
        self._choice_gradient = layer.weights_gradient()

    def _down_dgrad(self) -> None:
        self._refresh()
        self._of_rank.take_gradient(self._layer.gradients)
        self._of_rank.down_dgrad()

    def _refresh(self) -> None:
        """Weights of experts as they are now: those of the forward pass may have been let go since."""
        mine = self._held()
        self._of_rank.up, self._of_rank.down = ([weights[which] for weights, _ in mine] for which in (0, 1))

    def _up_dgrad(self) -> None:
        self._layer.gradients = self._of_rank.up_dgrad()

    def _choose_back(self, step: int) -> None:
        routing, shared = self._layer.routing, self.shared
        self._scores = gate.weights_grad(self._chances, routing.expert, self._choice_gradient, self._picks)
        if shared.place.routes:  # ranks of tp that share tokens add up their gradients
            tokens = shared.tokens / shared.scale
            self._scores = self._scores + self.routes.training.gradient(self.products["gate"].c, routing.wanted, tokens)

    def _first_gradient(self) -> Array:
        return self._scores

    def _input_gradient(self) -> Array:
        """Of the tokens by the gate, by the experts, and by what is beside them and goes the same way."""
        mine: Array = self.products["gate"].da + self._layer.merged_gradient
        total = mine if self._collected_back is None else self._collected_back
        return total if self.beside is None or self._apart else total + self.beside.input_gradient

    def _norm_grad(self, step: int) -> None:
        if self.beside and self._apart:
            routed = self._input_gradient() if self._before is None else self._before
            self._before = routed + self.beside.input_gradient
        super()._norm_grad(step)

    def _collect_back(self, step: int) -> Message:
        def take(parts: Array) -> None:
            self._collected_back, self._before = parts.reshape(-1, parts.shape[-1]), None

        assert self.place.routes_over is not None
        mine = self._input_gradient() if self._before is None else self._before
        return Message("all-gather", (self.place.routes_over,), mine, take)
