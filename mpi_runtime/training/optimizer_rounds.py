"""Updates on real numbers: the rules of an optimizer on this rank's shares of tensors, in the steps that a schedule gives them.

A rule's update is a generator that asks for sums over, or wholes from, all ranks with parts of a tensor. The shares of a part of
the model go on together, so that one exchange of the schedule answers all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.lowering.data_parallel.held_tensors import HeldTensors, together
from ...workloads.lowering.data_parallel.optimizer_steps import OptimizerStep, optimizer_steps
from ...workloads.lowering.data_parallel.sharding import held
from ...workloads.model.precision import PARTS, Formats, Part
from ...workloads.model.tensors import Tensor
from ...workloads.optimizers import Optimizer
from ...workloads.optimizers.optimizer import Gather, Request, TensorShare, Update, UpdateRule
from ...workloads.plan.setting import Setting
from ...workloads.schedule.operation import Task
from ...workloads.schedule.work import Exchange
from ...workloads.sharding import ShardTransfer
from .transformer.messages import Message

Array = NDArray[Any]
Index = NDArray[np.int64]


@dataclass
class HeldTensor:
    """A tensor of which a rank has a part: ``here`` in its share of a vector, ``index`` in the whole tensor.

    ``others[member]`` are the indices of every rank with a part of it, in the order of the axes along which they are; they are
    worked out when a whole is asked for. ``name`` is the same on all ranks.
    """

    part: Part
    tensor: Tensor
    rule: UpdateRule
    here: slice
    index: Index
    others: Callable[[], Sequence[Index]]
    state: dict[str, Array] = field(default_factory=dict)
    name: str = ""

    def start(self, formats: Formats) -> None:
        """State before the first step."""
        self.state = self.rule.state(len(self.index), self.tensor, formats)

    def share(self, weights: Array, master: Array | None, gradients: Array, replicas: float, step: int) -> TensorShare:
        """What an update works on, from the rank's share of a vector."""
        exact = None if master is None else master[self.here]
        mean = mean_of(gradients[self.here], replicas)
        return TensorShare(self.tensor, self.index, weights[self.here], exact, mean, self.state, step)


def mean_of(gradients: Array, replicas: float) -> Array:
    """The mean of gradients that were summed over replicas (or scaled by a number), in single precision or better."""
    mean: Array = gradients.astype(np.promote_types(gradients.dtype, np.float32)) / replicas
    return mean


def part_updated(task: Task) -> Part:
    """The part of the model that an update is about."""
    return next(each for each in PARTS if each == task.part)


def update_alone(optimizer: Optimizer, part: Part, share: TensorShare) -> None:
    """Update a whole tensor in one process: its sums are the sums, and its parts the whole."""
    updates = optimizer.rule(part, share.tensor).update(share)
    try:
        request = next(updates)
        while True:
            request = updates.send(request.values)
    except StopIteration:
        share.settle()


@dataclass
class _Under:
    """An update under way, and what it asks for; None once it is through."""

    held: HeldTensor
    share: TensorShare
    update: Update
    request: Request | None = None

    def go_on(self, answer: Array | None) -> None:
        """Send an answer, or begin, and come to the next request."""
        try:
            self.request = next(self.update) if answer is None else self.update.send(answer)
        except StopIteration:
            self.request = None
            self.share.settle()


Ready = Callable[[Part], Iterator[tuple[HeldTensor, TensorShare]]]
"""The tensors of a part of which the rank has parts, ready for an update."""


class OptimizerRounds:
    """The updates of a step, part by part, in the order in which the lowering wrote their operations.

    ``ready`` gives what a part's updates work on. :meth:`compute` and :meth:`message` take the operations one by one.
    """

    def __init__(self, setting: Setting, ready: Ready, formats: Mapping[Part, Formats] | None = None) -> None:
        self.setting, self.ready = setting, ready
        formats = formats or setting.plan.precisions.at(0)
        self._steps: dict[Part, list[OptimizerStep]] = {}
        self._axes: dict[Part, tuple[str, ...]] = {}
        tensors = HeldTensors(setting)
        for each in held(setting):
            self._steps[each.part] = list(optimizer_steps(tensors, each, formats[each.part], _any))
            self._axes[each.part] = together(setting, each)
        self.start_step()

    def start_step(self) -> None:
        """Nothing is updated yet."""
        self._at: dict[Part, int] = dict.fromkeys(self._steps, 0)
        self._rule: UpdateRule | None = None
        self._under: list[_Under] = []
        self._answers: list[Array] = []

    def compute(self, part: Part) -> None:
        """The next operation of a part, one that computes: begins a rule's updates, or goes on with what has come."""
        step = self._next(part)
        if step.begins:
            of_part = [each for each in self.ready(part) if each[0].rule == step.rule]
            self._under = [_Under(held, share, held.rule.update(share)) for held, share in of_part]
            for each in self._under:
                each.go_on(None)
            if self.setting.mesh.size(*self._axes[part]) == 1:
                self._finish_alone()
        elif self._answers:
            answers, self._answers = self._answers, []
            for under, answer in zip(self._under, answers, strict=True):
                under.go_on(answer)

    def message(self, part: Part) -> Message:
        """The next operation of a part, an exchange: what all its updates ask for."""
        step = self._next(part)
        assert isinstance(step.work, Exchange)
        requests = [(under.held, under.request) for under in self._under if under.request is not None]
        gather = step.work.operation == "all-gather"
        assert all(isinstance(request, Gather) == gather for _, request in requests), (
            f"{step.label} is another exchange"
        )
        values = [request.values for _, request in requests]
        return self._gathered(part, values) if gather else self._summed(part, values)

    def _next(self, part: Part) -> OptimizerStep:
        step = self._steps[part][self._at[part]]
        self._at[part] += 1
        return step

    def _finish_alone(self) -> None:
        for each in self._under:
            while each.request is not None:
                each.go_on(each.request.values)

    def _summed(self, part: Part, values: list[Array]) -> Message:
        def take(total: Array) -> None:
            self._answers = np.split(total, np.cumsum([len(each) for each in values])[:-1]) if values else []

        return Message("all-reduce", self._axes[part], _joined(values), take)

    def _gathered(self, part: Part, values: list[Array]) -> Message:
        """Parts of all members, each filled up to the longest, put where they belong."""
        places = [under.held.others() for under in self._under]
        longest = max((sum(len(of[member]) for of in places) for member in range(self._members(part))), default=0)
        payload = np.zeros(longest, dtype=_joined(values).dtype)
        payload[: sum(map(len, values))] = _joined(values)

        def take(parts: Array) -> None:
            starts = np.zeros(len(parts), dtype=int)
            self._answers = []
            for under, of in zip(self._under, places, strict=True):
                whole = np.zeros(under.held.tensor.size, dtype=parts.dtype)
                for member, index in enumerate(of):
                    whole[index] = parts[member, starts[member] : starts[member] + len(index)]
                    starts[member] += len(index)
                self._answers.append(whole)

        return Message("all-gather", self._axes[part], payload, take)

    def _members(self, part: Part) -> int:
        return self.setting.mesh.size(*self._axes[part])


def _joined(values: list[Array]) -> Array:
    return np.concatenate(values) if values else np.zeros(0, dtype=np.float32)


def _any(transfer: ShardTransfer) -> Exchange:
    """An exchange of which only the operation counts."""
    return Exchange(transfer.operation, "ring", transfer.axes, transfer.nbytes, transfer.element)
