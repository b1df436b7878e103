"""From what all ranks measured to the Run: the same books as the simulator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...workloads.loads.loads import Load, LoadModel
from ...workloads.lowering.unroll import ARRIVALS, DEPARTURES, unrolled
from ...workloads.plan.setting import Setting
from ...workloads.results.ledger import Ledger, last_to_come
from ...workloads.results.summary import Exposed
from ...workloads.results.trace import TraceRow
from ...workloads.schedule.operation import COMPUTE, Role, Task
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange
from ..training.tokens import Tokens

Array = NDArray[np.float64]

MOST_OBSERVED = 64
"""Ranks whose operations a trace lists; of more, that many are taken at equal distances."""


@dataclass(frozen=True)
class ObservedStep:
    """A measured step: seconds, where they went, and the rows of its trace."""

    seconds: float
    exposed: Exposed
    rows: list[TraceRow]


@dataclass(frozen=True)
class Times:
    """When a rank began and ended each operation, ``[operations]``, and the payload of each exchange."""

    begin: Array
    end: Array
    nbytes: Array


def classes(schedule: Schedule) -> dict[str, tuple[int, ...]]:
    """Name and coordinate of the ranks that a trace lists."""
    mesh = schedule.mesh
    ranks = np.unique(np.linspace(0, mesh.ranks - 1, min(mesh.ranks, MOST_OBSERVED)).round().astype(int))
    return {f"rank {rank}": tuple(int(at) for at in np.unravel_index(rank, mesh.shape)) for rank in ranks}


def account(schedule: Schedule, ranks: Sequence[Times], observed: Mapping[str, tuple[int, ...]]) -> ObservedStep:
    """Keep the books of a step from when each rank of the mesh began and ended each of its operations, from the step's start.

    A collective counts from when the last member of its group has come. Ranks of one pipeline stage have the same operations:
    each stage has books of its own, which begin and end together.
    """
    stages = [_Stage.of(schedule, ranks, observed, stage) for stage in range(schedule.mesh.size("pp"))]
    latest = np.max([each.passed for each in stages], axis=0)
    for each in stages:
        each.keep(stages, latest)
    clocks = [each.ledger.settle() for each in stages]
    seconds = max(float(clock.max()) for clock in clocks)
    for each, clock in zip(stages, clocks, strict=True):
        each.ledger.exposure.idle("update", seconds - clock)
    spent = [each.ledger.exposure.seconds for each in stages]
    exposed = {
        phase: {category: float(np.mean([each[phase][category] for each in spent])) for category in spent[0][phase]}
        for phase in spent[0]
    }
    rows = [row for each in stages for row in each.ledger.rows if row.stream != DEPARTURES]  # told where it arrives
    return ObservedStep(seconds, exposed, rows)


class _Stage:
    """The ranks of one pipeline stage, or all where there is none: ``[operations, *mesh]`` with one place along pp."""

    def __init__(self, schedule: Schedule, times: Array, ledger: Ledger) -> None:
        self.mesh, self.operations, self.ledger = schedule.mesh, ledger.schedule.operations, ledger
        self.begin, self.end = times[0], times[1]
        self.sends = {
            replace(each.task, role=Role.STAGE_RECEIVE): number
            for number, each in enumerate(self.operations)
            if each.task.role is Role.STAGE_SEND
        }

    @classmethod
    def of(
        cls, schedule: Schedule, ranks: Sequence[Times], observed: Mapping[str, tuple[int, ...]], stage: int
    ) -> _Stage:
        """The stage of that number."""
        mesh = schedule.mesh
        shape = tuple(1 if axis == "pp" else length for axis, length in zip(mesh.axes, mesh.shape, strict=True))
        along = mesh.positions(("pp",))
        every = [tuple(int(at) for at in place) for place in np.ndindex(*mesh.shape)]
        mine = [rank for rank, place in enumerate(every) if not along or place[along[0]] == stage]
        times = np.array([[ranks[rank].begin, ranks[rank].end, ranks[rank].nbytes] for rank in mine])
        times = np.moveaxis(times, 0, -1).reshape(*times.shape[1:], *shape)
        operations = tuple(
            replace(each, work=replace(each.work, nbytes=times[2, number])) if isinstance(each.work, Exchange) else each
            for number, each in enumerate(unrolled(schedule, every[mine[0]]))
        )
        here = {name: place for name, place in observed.items() if not along or place[along[0]] == stage}
        return cls(schedule, times, Ledger(replace(schedule, operations=operations), here))

    @cached_property
    def through(self) -> int:
        """The last operation of the last micro-batch's passes; -1 where there is no pipeline."""
        if self.mesh.size("pp") == 1:
            return -1
        return max(
            number
            for number, each in enumerate(self.operations)
            if each.stream == COMPUTE and each.task.micro_batch is not None
        )

    @property
    def passed(self) -> Array:
        """When each rank was through with them."""
        passed: Array = self.end[self.through]
        return passed

    def keep(self, stages: Sequence[_Stage], latest: Array) -> None:
        """Keep the books; what a rank waits for a stage that is not through counts as the pipeline's bubble."""
        for number, operation in enumerate(self.operations):
            ready = self.ledger.ready(number)
            came, went = self.begin[number], self.end[number]
            if operation.stream == ARRIVALS:
                sent = np.clip(self._sent(stages, operation.task), came, went)
                self.ledger.bubble(number, came, sent)
                came = sent
            elif isinstance(operation.work, Exchange):
                came = np.minimum(last_to_come(came, self.mesh.positions(operation.work.axes)), went)
            self.ledger.done(number, ready, came, went, "measured")
            if number == self.through:
                self.ledger.exposure.late = latest - went

    def _sent(self, stages: Sequence[_Stage], arrival: Task) -> Array:
        """When the stage that makes what arrives began to send it."""
        sender = next(each for each in stages if arrival in each.sends)
        begin: Array = sender.begin[sender.sends[arrival]]
        return begin


def loads(tokens: Sequence[Sequence[Tokens]], setting: Setting) -> list[Load]:
    """The load of every layer and micro-batch of a step, from what every rank of the mesh saw, in the order of the layers."""
    seen: dict[tuple[int, int], dict[int, Tokens]] = {}
    for rank, every in enumerate(tokens):
        for each in every:
            seen.setdefault((each.micro_batch, each.layer), {})[rank] = each
    model = LoadModel(setting) if seen else None
    return [] if model is None else [_load(model, key[0], ranks) for key, ranks in sorted(seen.items())]


def _load(model: LoadModel, micro_batch: int, ranks: Mapping[int, Tokens]) -> Load:
    """That of one layer, from the ranks that have it."""
    mesh, copies = model.mesh, model.tokens * model.top_k
    groups = [group for group in mesh.groups(model.axes) if int(group[0]) in ranks]
    wanted = np.array([[ranks[int(rank)].wanted.sum(axis=0) for rank in group] for group in groups]).sum(axis=1)
    carried = np.array([[ranks[int(rank)].carried for rank in group] for group in groups])
    every = np.array([ranks[rank].carried if rank in ranks else 0 for rank in range(mesh.ranks)], dtype=np.float64)
    return Load(
        sent=float(copies),
        counted=every.reshape(mesh.shape),
        wanted=wanted[0],
        carried=carried[0],
        micro_batch=micro_batch,
        wanted_max_over_mean=float(wanted.max() / copies),
        max_over_mean=float((carried.max(axis=1) / np.maximum(carried.mean(axis=1), 1e-300)).max()),
        moved_fraction=sum(each.moved for each in ranks.values()) / (len(ranks) * copies),
        dropped_fraction=sum(each.dropped for each in ranks.values()) / (len(ranks) * copies),
    )
