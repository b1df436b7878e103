"""Tokens that are routed for real where nothing is computed: what a schedule's operations do to them, and to flat vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.loads.loads import LoadModel
from ...workloads.loads.token_assignment import decisions
from ...workloads.model.number_types import TYPES
from ...workloads.model.precision import Part
from ...workloads.optimizers import TensorShare
from ...workloads.plan.setting import Setting
from ...workloads.routing.balancers.balancer import pairs_of
from ...workloads.schedule.operation import Does, Operation, Role, Task
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange
from ..messages.transport import Transport, every_operation
from .moe_holdings import HeldExperts, Key, MoeHoldings
from .moe_layer import MoeLayer
from .optimizer_rounds import HeldTensor, OptimizerRounds, part_updated
from .stand_ins import Blank, Steps
from .token_routing import Routing
from .tokens import Tokens
from .transformer.carrying import carry

Array = NDArray[Any]


DOWN: Does = (Role.PRODUCT, "down", None)
UP_GRADIENT: Does = (Role.PRODUCT, "up", "input")


class Training:
    """The data of this rank, and what operations do to it.

    Experts multiply by a number each, and the optimizer rests but where :attr:`exact` asks for a step that can be checked.
    """

    def __init__(self, setting: Setting, schedule: Schedule, transport: Transport, coordinate: tuple[int, ...]) -> None:
        rank = int(np.ravel_multi_index(coordinate, setting.mesh.shape))
        self.setting, self.transport, self.rank = setting, transport, rank
        self.loads = LoadModel(setting)
        self.exact = False
        self.kept: dict[
            Key, dict[int, Array]
        ] = {}  # gradients before their reduction, by segment, of a step that is checked
        self.layers: dict[tuple[int, int], MoeLayer] = {}
        self.formats = setting.plan.precisions.at(0)
        groups = setting.mesh.groups(("ep",))
        self.group, self.me = (int(place[0]) for place in np.nonzero(groups == rank))
        self.local = self.loads.experts // self.loads.ranks
        self.holdings = MoeHoldings(setting, self.formats, schedule, transport)
        self.updates = OptimizerRounds(setting, self._ready)
        operations = list(every_operation(schedule))
        self.synchronised = [
            (each.stream, each.work)
            for each in operations
            if isinstance(each.work, Exchange) and each.category == "gradient_sync"
        ]
        self._blank = Blank(transport, setting.mesh, coordinate)
        deciding = {Role.TOKENS_DEALT, Role.TOKENS_DROPPED}
        self._assigns_in_step = any(each.task.role in deciding for each in operations)
        for each in self.holdings.vectors.values():
            each.vector.remember()

    def start_step(self, step: int) -> None:
        """Draw what the gates decide, and make tokens; none of this belongs to the step's time."""
        model, batch = self.setting.model, self.setting.batch
        random = np.random.default_rng([self.setting.plan.seed, 8, step, self.rank])
        self.kept.clear()
        self.updates.start_step()
        for each in self.holdings.vectors.values():
            each.vector.start_step()
            if self.exact:  # dense layers compute no gradients: small whole numbers, whose sums are exact
                each.vector.gradients[...] = random.integers(1, 5, len(each.vector.gradients))
        kind = TYPES[self.formats["expert"].compute]
        shape = (batch.micro_tokens, model.hidden)
        for micro_batch in range(batch.micro_batches):
            tokens = random.integers(-8, 9, shape).astype(kind)
            for layer in range(model.layers):
                wanted = decisions(self.loads, layer, step, micro_batch, self.group)
                routing = Routing(wanted[self.me], self.loads.ranks, self.local, self.me)
                weights = 2.0 ** -random.integers(0, 3, wanted.shape[1:]).astype(np.float64)
                made = MoeLayer(self.transport, routing, tokens, weights)
                made.everyone = wanted
                made.past = self.loads.past(layer, step, micro_batch, self.group)
                if not self._assigns_in_step:
                    self._assign(made)
                self.layers[micro_batch, layer] = made

    def tokens(self) -> list[Tokens]:
        """What this rank saw of each layer, micro-batch after micro-batch."""
        return [Tokens.of(layer, *key) for key, layer in self.layers.items()]

    def no_numbers(self) -> str:
        """Whether gradients are numbers."""
        fine = all(np.isfinite(held.vector.gradients).all() for held in self.holdings.vectors.values())
        return "" if fine else "gradients"

    # --- operations that compute ------------------------------------------------------------------------------------------

    def compute(self, operation: Operation) -> bool:
        """Do what a compute operation does to the data; returns whether that was all of its work, as it would be for real."""
        task = operation.task
        if task.role is Role.OPTIMIZER:
            return self._update(part_updated(task))
        if task.part != "moe":
            return False
        layer = self._layer(task)
        if task.role is Role.TOKENS_DEALT:
            layer.deal(task.step or 0)
            return True
        if task.role is Role.TOKENS_DROPPED:
            self._assign(layer)
            return True
        if task.role is Role.BALANCING:
            return False
        return self._expert(layer, task)

    def _layer(self, task: Task) -> MoeLayer:
        assert task.layer is not None
        return self.layers[task.micro_batch or 0, task.layer]

    def _expert(self, layer: MoeLayer, task: Task) -> bool:
        """The operations of experts and of what stands around them."""
        moves: dict[Does, Callable[[], None]] = {
            (Role.PERMUTE, None, None): layer.permute,
            (Role.MERGE, None, None): layer.merge,
            (Role.MERGE, None, "input"): layer.merge_gradient,
            (Role.PERMUTE, None, "input"): layer.permute_gradient,
        }
        if task.does in moves:
            moves[task.does]()
            return True
        if task.does == DOWN:
            layer.stand_in()
        if task.does == UP_GRADIENT:
            layer.stand_in_gradient()
        return False

    def _assign(self, layer: MoeLayer) -> None:
        """Let the balancing policy decide whose tokens go where; every rank knows from the seed what its group wants."""
        ranks, home = self.loads.ranks, layer.everyone // self.local
        wanted = np.zeros((home.shape[2], ranks, ranks), dtype=np.int64)
        for choice in range(home.shape[2]):
            np.add.at(wanted[choice], (np.arange(ranks)[:, None], home[:, :, choice]), 1)
        layer.routing.assign(pairs_of(self.loads.balancer, wanted, self.loads.tokens, layer.past)[self.me])

    def _update(self, part: Part) -> bool:
        """Update this rank's share of a part of the model."""
        if self.exact:
            self.updates.compute(part)
        return False

    def _ready(self, part: Part) -> Iterator[tuple[HeldTensor, TensorShare]]:
        held = self.holdings.of_part(part)
        return held.vector.ready(part, held.replicas)

    # --- exchanges --------------------------------------------------------------------------------------------------------

    def exchange(self, operation: Operation) -> Steps:
        """Send and receive what an exchange carries."""
        exchange, task = operation.work, operation.task
        assert isinstance(exchange, Exchange)
        if task.part == "moe":
            if task.role is Role.BALANCING:
                return self._blank.exchange(operation)
            return self._tokens(self._layer(task), task, operation.stream, exchange)
        if task.role is Role.OPTIMIZER and self.exact:
            message = self.updates.message(part_updated(task))
            return carry(self.transport, operation.stream, exchange, message)
        if operation.category == "gradient_sync":
            held = self.holdings.vectors[MoeHoldings.key(operation)]
            return self._vector(held, task.layer, operation.stream, exchange)
        return self._blank.exchange(operation)

    def _tokens(self, layer: MoeLayer, task: Task, stream: str, exchange: Exchange) -> Steps:
        """What tokens need, and what tells how many come; a policy's other exchanges carry bytes of no meaning."""
        if of_choice := layer.balancing.get(task.role):
            return of_choice(task.step or 0, stream, exchange)
        moves: dict[Does, Callable[[str, Exchange], Steps]] = {
            (Role.TOKEN_COUNTS, None, None): layer.counts,
            (Role.DISPATCH, None, None): layer.dispatch,
            (Role.COMBINE, None, None): layer.combine,
            (Role.COMBINE, None, "input"): layer.combine_gradient,
            (Role.DISPATCH, None, "input"): layer.dispatch_gradient,
        }
        return moves[task.does](stream, exchange)

    def _vector(self, held: HeldExperts, layer: int | None, stream: str, exchange: Exchange) -> Steps:
        vector = held.vector
        if exchange.operation == "all-gather":
            cells = vector.gathered()
            yield from self.transport.play(stream, exchange, cells)
            vector.spread(cells)
            return
        number = min(self.holdings.segment(layer), len(vector.sizes) - 1)
        if self.exact:
            self.kept.setdefault((held.axes, exchange.element), {})[number] = vector.segment(
                vector.gradients, number
            ).copy()
        yield from self.transport.play(stream, exchange, vector.cut(vector.gradients, number))
