"""A whole model on one rank: what the operations of a schedule do to its activations, weights and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from functools import partial

import numpy as np

from ....workloads.mesh.axes import CONTEXT, DATA
from ....workloads.model.number_types import TYPES
from ....workloads.model.precision import Formats, Part
from ....workloads.pipelines import PIPELINES
from ....workloads.plan.setting import Setting
from ....workloads.schedule.operation import Does, Operation, Role, Task
from ....workloads.schedule.work import Exchange
from ...messages.groups import Group
from ...messages.rounds import Requests
from ...messages.transport import Transport
from ..optimizer_rounds import OptimizerRounds, part_updated
from ..stand_ins import Blank, stage_message
from ..tokens import Tokens
from .attention.kernels import COMPUTED
from .carrying import carry
from .experts.gate_training import GateTraining
from .experts.token_routes import TokenRoutes
from .halves import Index
from .local import MicroBatch
from .messages import Array
from .rounding import no_rounding, rounding
from .weights.holdings import ModelHoldings
from .weights.shards import EMBEDDING, Place, Sizes

Steps = Generator[Requests, None, None]
Source = Callable[[int], tuple[Index, Index]]
"""The words of a step's whole batch ``[sequences, seq_len]``, replica by replica, and those that should follow each of them."""

CARRIED: Does = (Role.MERGE, None, None)
"""What a rank's tokens do last in a layer with experts."""


class ModelTraining:
    """Trains a model for real, on this rank's part of it and of the batch.

    Each micro-batch keeps what it needs of the forward pass in a :class:`MicroBatch` of its own, until its backward pass has
    come through the rank's layers; weights and gradients are in :class:`ModelHoldings`. ``source`` gives the batch of each step;
    ``learned``: tokens go where the gate's scores say, and not where the plan's router does. ``rounds``: every part computes in
    its format; else products of halves are those of singles. ``gates``: what trains gates beside the loss.

    Gradients are those of :attr:`scale` times the loss. Before the update ``usable``, which may ask whether this rank's
    gradients are numbers, says whether there is one.
    """

    def __init__(
        self,
        setting: Setting,
        transport: Transport,
        coordinate: tuple[int, ...],
        source: Source | None = None,
        learned: bool = False,
        rounds: bool = False,
        gates: GateTraining | None = None,
    ) -> None:
        self.setting, self.transport, self.learned = setting, transport, learned
        self.source = source or partial(batch_of, setting)
        mesh, plan = setting.mesh, setting.plan
        self.sizes = sizes_of(setting)
        around = transport.along(mesh.having(CONTEXT))
        ring = () if around is None else tuple(int(member) for member in around.member)
        self.place = Place.in_mesh(setting, coordinate, ring)
        self._rounds = rounds
        self.scale = 1.0
        self.usable: Callable[[Callable[[], bool]], bool] = lambda finite: True
        self._asked = False
        self.take_formats(plan.precisions.at(0))
        self.micro_batches: dict[int, MicroBatch] = {}
        self.routing = TokenRoutes(setting, transport, self.place, learned, gates) if setting.model.experts else None
        self._blank = Blank(transport, mesh, coordinate)
        self.loss = 0.0
        self._last_of_layer = Role.NORM_SUM if self.place.grid > 1 else Role.NORM
        self._splits = mesh.size("pp") > 1 and PIPELINES.find(plan.pipeline).splits_backward
        self._words = self._targets = np.zeros((0, 0, 0), dtype=np.int64)

    def take_formats(self, formats: Mapping[Part, Formats]) -> None:
        """Keep and compute numbers in these formats; weights are as before the first step, until somebody restores others."""
        self.formats = formats
        self.rounded = rounding(formats) if self._rounds else no_rounding
        self.holdings = ModelHoldings(self.setting, self.sizes, self.place, formats)
        self.updates = OptimizerRounds(self.setting, self.holdings.ready, formats)

    # --- the batch --------------------------------------------------------------------------------------------------------

    def start_step(self, step: int) -> None:
        """Draw the batch; gradients are zero again."""
        self.holdings.start_step()
        self.updates.start_step()
        self._asked = False
        self.micro_batches.clear()
        self.loss = 0.0
        if self.routing is not None:
            self.routing.start_step(step)
        words, targets = self.source(step)
        self._words, self._targets = self._mine(words), self._mine(targets)

    def _mine(self, values: Index) -> Index:
        """The rank's sequences ``[micro-batches, sequences, tokens]``: those of its replica, its part of them under ``cp``."""
        axes = [axis for axis in self.setting.mesh.axes if axis in DATA]
        shape = [self.place.of(axis) for axis in axes]
        replica = int(np.ravel_multi_index([self.place.me(axis) for axis in axes], shape)) if axes else 0
        mine = np.split(values, self.setting.mesh.replicas)[replica]
        part = mine[:, self.place.part(values.shape[1], self.place.context)]
        return part.reshape(self.setting.batch.micro_batches, -1, part.shape[1])

    def _micro_batch(self, number: int) -> MicroBatch:
        if number not in self.micro_batches:
            self.micro_batches[number] = MicroBatch(
                self.sizes,
                self.place,
                self.holdings.weights,
                self.holdings.gradients,
                self._words[number],
                self._targets[number],
                self.setting.batch.tokens * self.setting.mesh.replicas,
                COMPUTED[type(self.setting.plan.kernel)],
                None if self.routing is None else self.routing.of_micro_batch(number),
                self.rounded,
                self.scale,
            )
        return self.micro_batches[number]

    def tokens(self) -> list[Tokens]:
        """What this rank saw of each of its layers with experts."""
        return [] if self.routing is None else self.routing.seen

    # --- operations -------------------------------------------------------------------------------------------------------

    def no_numbers(self) -> str:
        """Whether loss and gradients are numbers; gradients of halves may well be beyond their range."""
        if not math.isfinite(self.loss):
            return "loss"
        return "gradients" if math.isnan(self.holdings.squares()) else ""

    def compute(self, operation: Operation) -> bool:
        """Do what a compute operation does; the framework's bookkeeping, and what a policy of one's own does, are none of it."""
        task = operation.task
        if task.role is Role.OPTIMIZER:
            self._ask()
            self.updates.compute(part_updated(task))
            return True
        if task.role in (Role.BOOKKEEPING, Role.SHARD_BOOKKEEPING, Role.UPDATE_SCALING, Role.BALANCING):
            return False
        micro_batch = self._micro_batch(task.micro_batch or 0)
        micro_batch.compute(task)
        if task.role is Role.LOSS and task.gradient is None and self.place.width == 1:
            self.loss += micro_batch.loss
        self._leave(task, micro_batch)
        return True

    def _ask(self) -> None:
        """Whether the step updates anything: asked before its first update."""
        if not self._asked:
            self._asked = True
            self.holdings.begin_update(self.scale, self.usable)

    def _leave(self, task: Task, micro_batch: MicroBatch) -> None:
        """Behind a pass through a layer, let go what the layer needs no more."""
        if task.layer is None or task.recomputed:
            return
        back = (task.part, task.role, task.gradient) == ("attention", self._last_of_layer, "input")
        mixture = micro_batch.mixtures.get(task.layer)
        if mixture is not None and self.routing is not None and (task.part, task.does) == ("moe", CARRIED):
            self.routing.see(mixture, task.micro_batch or 0)
        if back or (task.part == "ffn" and task.role is Role.RESIDUAL):
            self.holdings.release(task.layer)
        if back and not self._splits:
            micro_batch.forget(task.layer)

    def exchange(self, operation: Operation) -> Steps:
        """Send and receive what an exchange carries."""
        exchange, task, stream = operation.work, operation.task, operation.stream
        assert isinstance(exchange, Exchange)
        if task.role in (Role.STAGE_RECEIVE, Role.STAGE_SEND):
            yield from self._between_stages(operation, exchange)
        elif task.role in (Role.TIED_GRADIENT_TO_FIRST, Role.TIED_GRADIENT_TO_LAST):
            yield from self._tied(task.role, stream, exchange)
        elif task.role is Role.OPTIMIZER:
            self._ask()
            message = self.updates.message(part_updated(task))
            if message.payload.size:
                yield from carry(self.transport, stream, exchange, message)
        elif operation.category == "gradient_sync":
            yield from carry(self.transport, stream, exchange, self.holdings.message(task, exchange))
        elif task.role is Role.BALANCING:
            yield from self._blank.exchange(operation)
        else:
            micro_batch = self._micro_batch(task.micro_batch or 0)
            yield from micro_batch.carry(self.transport, task, stream, exchange)
            self._leave(task, micro_batch)
            if task.role is Role.LOSS_SUM:
                self.loss += micro_batch.loss

    # --- between stages ---------------------------------------------------------------------------------------------------

    def _between_stages(self, operation: Operation, exchange: Exchange) -> Steps:
        """Rows of the residual stream go on to the next stage, or their gradients back."""
        task = operation.task
        assert task.layer is not None and task.micro_batch is not None
        group, micro_batch = self.transport.group(operation.stream, exchange), self._micro_batch(task.micro_batch)
        other, tag = stage_message(group, operation)
        forward = exchange.algorithm == "next"
        if task.role is Role.STAGE_SEND:
            rows = micro_batch.leave(task.layer) if forward else micro_batch.gradient
            yield from self._send(group, operation.stream, exchange, rows, other, tag)
            return
        rows = yield from self._receive(group, exchange, self._rows, other, tag)
        self.transport.carried[operation.stream] += rows.size * TYPES[exchange.element]().nbytes
        if forward:
            micro_batch.enter(task.layer, rows)
        else:
            micro_batch.gradient = rows

    @property
    def _rows(self) -> tuple[int, int]:
        """Shape of this rank's rows of the residual stream in a micro-batch."""
        tokens = self._words[0].size // self.place.grid // self.place.by_tokens
        return tokens, self.sizes.hidden // self.place.grid

    def _tied(self, role: Role, stream: str, exchange: Exchange) -> Steps:
        """Gradients of the embedding, which the first and the last stage have: added up by the first, given back to the last."""
        group = self.transport.group(stream, exchange)
        last = group.size - 1
        sender, receiver = (last, 0) if role is Role.TIED_GRADIENT_TO_FIRST else (0, last)
        if group.me == sender:
            yield from self._send(group, stream, exchange, self.holdings.gradients[EMBEDDING], receiver, 0)
        if group.me == receiver:
            mine = self.holdings.gradients[EMBEDDING]
            other = yield from self._receive(group, exchange, mine.shape, sender, 0)
            mine[...] = mine + other if receiver == 0 else other

    def _send(self, group: Group, stream: str, exchange: Exchange, values: Array, to: int, tag: int) -> Steps:
        leaving = np.ascontiguousarray(values, dtype=TYPES[exchange.element])
        self.transport.carried[stream] += leaving.nbytes
        yield [group.send(leaving, to, tag)]

    def _receive(
        self, group: Group, exchange: Exchange, shape: tuple[int, ...], source: int, tag: int
    ) -> Generator[Requests, None, Array]:
        arriving = np.empty(shape, dtype=TYPES[exchange.element])
        yield [group.receive(arriving, source, tag)]
        return arriving.astype(np.promote_types(arriving.dtype, np.float32), copy=False)


def sizes_of(setting: Setting) -> Sizes:
    """The shape of a model."""
    model = setting.model
    return Sizes(
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.key_value_heads,
        head=model.query_size,
        hidden=model.hidden,
        ffn_hidden=model.ffn_hidden,
        vocabulary=model.vocabulary,
        gated=model.gated,
        rms=model.norm == "rms",
        tied=model.tied,
        experts=model.experts,
        expert_hidden=model.expert_width if model.experts else 0,
        top_k=setting.top_k,
        hidden_beside=model.width_beside if model.experts else 0,
        moe=tuple(layer.moe for layer in model.stack) if model.experts else (),
    )


def batch_of(setting: Setting, step: int) -> tuple[Index, Index]:
    """All sequences of a step's batch, replica by replica, and the words that follow each of their words."""
    batch = setting.batch
    count = setting.mesh.replicas * batch.tokens // batch.seq_len
    random = np.random.default_rng([setting.plan.seed, 10, step])
    words = random.integers(0, setting.model.vocabulary, (count, batch.seq_len + 1))
    return words[:, :-1], words[:, 1:]
