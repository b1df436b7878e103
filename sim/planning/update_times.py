"""Seconds of what happens around layers and after all of them: weights that come, gradients that leave, the update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ...workloads.lowering import finish
from ...workloads.lowering.builder import COMMUNICATION, HOST, HOST_IN, Program
from ...workloads.lowering.data_parallel.sharding import held, held_of_layer, layers_of_longest
from ...workloads.lowering.step import TrainingStep
from ...workloads.model.model import Layer
from ...workloads.plan.setting import Setting
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.operation import COMPUTE, Operation, Role, Task
from ...workloads.schedule.work import Exchange
from .collective_times import Wires
from .pass_times import Key, dealt


@dataclass(frozen=True)
class Beside:
    """Seconds around the passes through a layer: ``now`` while nothing else runs, ``aside`` beside the layers."""

    now: float = 0.0
    aside: float = 0.0


@dataclass(frozen=True)
class Hooks:
    """What happens around one layer forward, before its backward pass, and after it."""

    forward: Beside
    backward: Beside
    after: Beside


@dataclass(frozen=True)
class AroundTimes:
    """What a strategy does around layers of each kind, once a pass (``ends``), and after the last micro-batch (``update``).

    ``always``: gradients leave in every micro-batch, not only the last one. ``hidden`` runs beside the whole step, ``gathered``
    (a stage's first layer, its others) before and beside the first forward pass.
    """

    layers: dict[Layer, Hooks]
    ends: float
    update: float
    hidden: float
    always: bool
    gathered: tuple[float, float] = (0.0, 0.0)


@dataclass
class Surroundings:
    """The same for settings that hold and exchange their parameters in the same way, which are known once.

    The hooks of the lowering are called for a layer of each kind, and what they append is added up.
    """

    costs: Costs
    _known: dict[Key, AroundTimes] = field(default_factory=dict)

    def of(self, setting: Setting, wires: Wires) -> AroundTimes:
        """What happens around the layers of a setting."""
        plan = setting.plan
        local = setting.batch.micro_tokens if "activations" in plan.offloads else 0
        key: Key = (
            setting.mesh,
            wires.placement,
            plan.zero,
            plan.overlap,
            plan.offload,
            plan.offload_delay,
            *dealt(setting),
        )
        key = (*key, plan.sequence_parallel, plan.expert_tensor, plan.precision, local, plan.pipeline in ASYNCHRONOUS)
        if key not in self._known:
            self._known[key] = self._lower(setting, wires)
        return self._known[key]

    def _lower(self, setting: Setting, wires: Wires) -> AroundTimes:
        step, stack = TrainingStep(setting, 0), setting.model.stack
        kinds, ends = dict[Layer, Hooks](), 0.0
        for kind in dict.fromkeys(stack):
            at = len(stack) - 1 - stack[::-1].index(kind)
            kinds[kind], ends = self._hooks(step, at, wires)
        program = Program(wires.layout)
        if not step.asynchronous:
            finish(program, step)
        else:
            step.update.synchronise(program, held(setting), Task())
            step.update.step(program)
        operations = program.schedule().operations
        delayed = {HOST, HOST_IN} if setting.plan.offload_delay else set()
        hidden = sum(self._seconds(each, wires) for each in operations if each.stream in delayed)
        update = sum(self._seconds(each, wires) for each in operations if each.stream not in delayed)
        return AroundTimes(kinds, ends, update, hidden, setting.plan.shards >= 2, self._gathers(setting, step, wires))

    def _gathers(self, setting: Setting, step: TrainingStep, wires: Wires) -> tuple[float, float]:
        """Seconds of gathering a stage's updated weights beside the first forward pass: its first layer's, and the others'."""
        if not setting.plan.weights_overlap:
            return 0.0, 0.0
        program = Program(wires.layout)
        first, *others = (
            sum(wires.seconds(each) for _, each in step.update.gathers(program, held_of_layer(setting, layer)))
            for layer in layers_of_longest(setting)
        )
        return first, sum(others)

    def _hooks(self, step: TrainingStep, at: int, wires: Wires) -> tuple[Hooks, float]:
        """Around one layer, and what happens once a pass."""
        program, seen = Program(wires.layout), 0
        around = step.around(last=True, layers=(at,))
        found, ends = [], 0.0
        for stage in ("forward", "backward", "after"):
            again = stage == "backward"
            for each in around:
                if stage == "after":
                    each.after_backward(program, at)
                else:
                    each.begin(program, again)
                    each.before(program, at, again)
                if stage == "forward":
                    each.after_forward(program, at)
            operations = program.schedule().operations
            mine, seen = operations[seen:], len(operations)
            of_layer = [each for each in mine if each.task.layer == at]
            ends += sum(self._seconds(each, wires) for each in mine if each not in of_layer) / 2
            found.append(self._beside(of_layer, wires))
        return Hooks(*found), ends

    def _beside(self, operations: Iterable[Operation], wires: Wires) -> Beside:
        now = aside = 0.0
        for each in operations:
            inline = each.stream in (COMPUTE, COMMUNICATION) or each.task.role is Role.ACTIVATION_FETCH
            seconds = self._seconds(each, wires)
            now, aside = (now + seconds, aside) if inline else (now, aside + seconds)
        return Beside(now, aside)

    def _seconds(self, operation: Operation, wires: Wires) -> float:
        if isinstance(operation.work, Exchange):
            return wires.seconds(operation.work)
        return float(np.max(self.costs.of(operation.work).seconds))


ASYNCHRONOUS = ("pipedream", "2bw")
