"""What the operations of a Schedule do to the data of one rank: tokens, experts, gradients, weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.loads.loads import LoadModel
from ...workloads.loads.token_assignment import decisions
from ...workloads.model.precision import Part
from ...workloads.optimizers import TensorShare
from ...workloads.plan.setting import Setting
from ...workloads.routing.balancers import Capacity
from ...workloads.schedule.schedule import Exchange, Operation, Schedule
from ..devices import TYPES
from ..messages.transport import Transport, every_operation
from .dense.carrying import carry
from .moe_holdings import Held, Key, MoeHoldings, initial_expert
from .moe_layer import MoeLayer
from .operation_names import NamedPart, updated_part
from .optimizer_rounds import HeldTensor, OptimizerRounds
from .stand_ins import Blank, Steps
from .token_routing import Routing
from .tokens import Tokens

Array = NDArray[Any]


class Training:
    """The data of this rank, and what operations do to it.

    ``real`` says that experts compute (on what arrived, with real weights) and that weights are updated; without it experts
    multiply by a number each, and the optimizer rests but where :attr:`exact` asks for a step that can be checked.
    """

    def __init__(
        self, setting: Setting, schedule: Schedule, transport: Transport, coordinate: tuple[int, ...], real: bool
    ) -> None:
        rank = int(np.ravel_multi_index(coordinate, setting.mesh.shape))
        self.setting, self.transport, self.rank, self.real = setting, transport, rank, real
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
        self._parts: dict[str, NamedPart] = {}
        if real:
            self._draw_experts()
        for each in self.holdings.vectors.values():
            each.vector.remember()

    def _draw_experts(self) -> None:
        """Give this rank's experts their weights."""
        for layer in range(self.setting.model.layers):
            up, down = self.holdings.experts("weights", layer, self.local)
            for expert in range(self.local):
                number = self.me * self.local + expert
                up[expert], down[expert] = initial_expert(self.setting.model, self.setting.plan.seed, layer, number)

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
                made.parameters = self._parameters(layer) if self.real else None
                self.layers[micro_batch, layer] = made

    def tokens(self) -> list[Tokens]:
        """What this rank saw of each layer, micro-batch after micro-batch."""
        return [
            Tokens(
                np.array([layer.routing.wants(choice) for choice in range(layer.weights.shape[1])]),
                layer.carried,
                layer.routing.moved,
                layer.routing.dropped,
            )
            for layer in self.layers.values()
        ]

    def _part(self, name: str) -> NamedPart:
        if name not in self._parts:
            self._parts[name] = NamedPart.of(name)
        return self._parts[name]

    def _parameters(self, layer: int) -> tuple[Array, Array, Array, Array]:
        """Weights and gradients of this rank's experts; weights in single where they are kept in half, which BLAS lacks."""
        up, down = self.holdings.experts("weights", layer, self.local)
        if up.dtype == np.float16:
            up, down = up.astype(np.float32), down.astype(np.float32)
        return (up, down, *self.holdings.experts("gradients", layer, self.local))

    # --- operations that compute ------------------------------------------------------------------------------------------

    def compute(self, operation: Operation) -> bool:
        """Do what a compute operation does to the data; returns whether that was all of its work, as it would be for real."""
        part = self._part(operation.name)
        if operation.category == "optimizer":
            return self._update(updated_part(part.what))
        if part.layer is None or not part.what.startswith("moe."):
            return False
        layer, what = self.layers[part.micro_batch, part.layer], part.what.removeprefix("moe.")
        if what.startswith("swipe"):
            layer.deal(int(what[5 : what.index(".")]))
            return True
        if what == "capacity.count":
            self._drop(layer)
            return True
        return self._expert(layer, what)

    def _expert(self, layer: MoeLayer, what: str) -> bool:
        """The operations of experts and of what stands around them."""
        moves: dict[str, Callable[[], None]] = {
            "permute": layer.permute,
            "merge": layer.merge,
            "merge.grad": layer.merge_gradient,
            "permute.grad": layer.permute_gradient,
        }
        if what in moves:
            moves[what]()
            return True
        if what == "up":
            layer.begin_experts()
        if what == "down":
            layer.end_experts()
        if what == "down.dgrad":
            layer.take_gradients()
        if what == "up.dgrad":
            layer.end_gradients()
        experts = layer.experts
        if experts is None:
            return False
        computing: dict[str, Callable[[], None]] = {
            "up": experts.up_product,
            "activation": experts.activate,
            "down.dgrad": experts.down_dgrad,
            "down.wgrad": experts.down_wgrad,
            "activation.grad": experts.activate_gradient,
            "up.wgrad": experts.up_wgrad,
        }
        if what in computing:
            computing[what]()
        return what in computing or what in ("down", "up.dgrad")

    def _drop(self, layer: MoeLayer) -> None:
        balancer = self.setting.plan.balancing
        assert isinstance(balancer, Capacity)
        top_k = layer.weights.shape[1]
        layer.routing.drop(layer.everyone, int(np.ceil(balancer.factor * self.setting.batch.micro_tokens * top_k)))

    def _update(self, part: Part) -> bool:
        """Update this rank's share of a part of the model."""
        if not (self.real or self.exact):
            return False
        self.updates.compute(part)
        return self.real

    def _ready(self, part: Part) -> Iterator[tuple[HeldTensor, TensorShare]]:
        held = self.holdings.of_part(part)
        return held.vector.ready(part, held.replicas)

    # --- exchanges --------------------------------------------------------------------------------------------------------

    def exchange(self, operation: Operation) -> Steps:
        """Send and receive what an exchange carries."""
        exchange, part = operation.work, self._part(operation.name)
        assert isinstance(exchange, Exchange)
        if part.layer is not None and part.what.startswith("moe."):
            layer = self.layers[part.micro_batch, part.layer]
            return self._tokens(layer, part.what.removeprefix("moe."), operation.stream, exchange)
        if operation.category == "optimizer" and (self.real or self.exact):
            message = self.updates.message(updated_part(part.what))
            return carry(self.transport, operation.stream, exchange, message)
        if operation.category == "gradient_sync":
            return self._vector(
                self.holdings.vectors[MoeHoldings.key(operation)], part.layer, operation.stream, exchange
            )
        return self._blank.exchange(operation)

    def _tokens(self, layer: MoeLayer, what: str, stream: str, exchange: Exchange) -> Steps:
        if what.startswith("swipe"):
            choice, _, which = what.removeprefix("swipe").partition(".")
            return layer.swipe(which, int(choice), stream, exchange)
        moves: dict[str, Callable[[str, Exchange], Steps]] = {
            "counts": layer.counts,
            "dispatch": layer.dispatch,
            "combine": layer.combine,
            "combine.grad": layer.combine_gradient,
            "dispatch.grad": layer.dispatch_gradient,
        }
        return moves[what](stream, exchange)

    def _vector(self, held: Held, layer: int | None, stream: str, exchange: Exchange) -> Steps:
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
