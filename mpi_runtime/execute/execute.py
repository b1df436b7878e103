"""execute(): machine, model and plan in, a measured Run out; a collective call over all ranks of the job."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from ...hardware.errors import DoesNotFit, Ended, InputError
from ...hardware.machine import Machine
from ...hardware.precisions import BYTES
from ...hardware.units import si
from ...workloads.loads.loads import Load, LoadStatistics
from ...workloads.lowering import lower_step
from ...workloads.lowering.simulator_memory import available_bytes, peak_rss_bytes
from ...workloads.lowering.unroll import unrolled
from ...workloads.memory import memory, require_fit
from ...workloads.model.model import Model
from ...workloads.plan.plan_options import PlanOptions
from ...workloads.plan.run_file import resolved
from ...workloads.plan.setting import Setting
from ...workloads.plan.signatures import documented
from ...workloads.results.run import Run
from ...workloads.results.run_inputs import RunInputs
from ...workloads.results.summary import cautions, summarise
from ...workloads.results.totals import Network, Totals
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.operation import Operation
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange, PipelineWork
from ..devices import Computing, Device, Sleeping
from ..job.agreement import agree_on, flags, job
from ..job.clock import Clock
from ..job.ending import TIME_LIMIT, numbers_text
from ..job.host import Conditions, HostWatch
from ..job.rank_order import arrange
from ..job.world import World
from ..messages.link_bytes import links
from ..messages.transport import Transport, every_operation
from ..training.checks import ExpertChecks
from ..training.stand_ins import Blank, Data
from ..training.step_data import Training
from ..training.transformer.checks import ModelChecks, serial_bytes
from ..training.transformer.training import ModelTraining
from . import observation as observed
from .capabilities import Kind, data_of
from .executor import Executor
from .starts import Starts

REPEATS = 10
"""Steps that are measured where nobody says how many."""

BASE = 150e6
"""Bytes of Python with its libraries and MPI."""


@dataclass(frozen=True)
class Way:
    """How a schedule is executed, beside the plan: what computes, how much of it, and who carries messages."""

    compute: Literal["gemm", "sleep"] = "gemm"
    compute_scale: float = 1.0
    collectives: Literal["rounds", "library"] = "rounds"
    check: bool = True
    allow_overcommit: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.compute_scale <= 1000:
            raise InputError(f"--compute-scale {self.compute_scale:g}: must be above 0 and at most 1000")

    @property
    def real(self) -> bool:
        """Whether experts compute what they are asked for, no more and no less."""
        return self.compute == "gemm" and self.compute_scale == 1.0


@documented(lambda option: not option.simulated_only)
def execute(
    machine: str | Path | Machine = "laptop",
    model: str | Path | Model | None = None,
    *,
    way: Way | None = None,
    expect_ranks: int | None = None,
    time_limit: float = TIME_LIMIT,
    ready: Callable[[], None] = lambda: None,
    advance: Callable[[str], None] = lambda text: None,
    **options: Unpack[PlanOptions],
) -> Run | None:
    """Execute training steps of ``model`` over MPI, by the schedule that ``simulate()`` predicts for ``machine``.

    Every rank of the job calls it with the same arguments; rank 0 gets the Run, the others None. A run file may stand for
    machine and model, as in ``simulate()``; without either the model is ``moda-tiny``. Without ``steps``, ten are measured;
    those whose ranks began too far apart are executed again. ``ready`` is called on rank 0 before anything runs, and may refuse,
    ``advance`` with what has been done. Raises ``InputError`` on one rank, on the others ``Ended``, for what cannot be run.
    """
    started = time.perf_counter()
    way = way or Way()
    given = {"machine": machine, "model": model, **flags(vars(way)), **flags(options)}
    with job("execute", given, expect_ranks=expect_ranks, time_limit=time_limit) as world:
        world.agree(ready if world.first else lambda: None)
        setting, overcommit = world.agree(lambda: setting_of(machine, model, options, world, REPEATS))
        agree_on(world, whole(setting))
        way = replace(way, allow_overcommit=way.allow_overcommit or overcommit)
        kind = world.agree(lambda: data_of(setting, way.compute == "gemm", way.real))
        return ScheduledJob(world, setting, way, kind, advance).run(started)


def setting_of(
    machine: str | Path | Machine,
    model: str | Path | Model | None,
    options: Mapping[str, Any],
    world: World,
    steps: int | None = None,
) -> tuple[Setting, bool]:
    """The setting, for as many ranks as there are, and whether a run file allows it to exceed the memory.

    ``steps``: so many where nobody says how many.
    Raises ``InputError`` for what is only simulated.
    """
    if model is None and not str(machine).endswith(".toml"):
        model = "moda-tiny"
    machine, model, chosen, overcommit = resolved(machine, model, options, None)
    if steps is not None and chosen.get("steps") is None:
        chosen["steps"] = steps
    setting = Setting.of(machine, model, chosen)
    if setting.mesh.ranks != world.size:
        raise InputError(
            f"--mesh {setting.mesh}: has {setting.mesh.ranks} ranks, and {world.size} run; start it with"
            f" mpiexec -n {setting.mesh.ranks}"
        )
    if setting.plan.scatter_gather:
        raise InputError("--scatter-gather: is simulated only; over MPI stages pass on all that they have")
    if setting.plan.weights_overlap:
        raise InputError(
            "--overlap all: is simulated only; over MPI updated weights are gathered at once (--overlap gradients)"
        )
    for flag, asked in (
        ("--tensor-overlap", setting.plan.tensor_overlap),
        ("--tensor-async", setting.plan.tensor_async),
    ):
        if asked:
            raise InputError(f"{flag}: is simulated only; over MPI exchanges over tp and products take turns")
    return setting, overcommit


def whole(setting: Setting) -> dict[str, Any]:
    """All that a setting holds, for ranks to compare: files and defaults included."""
    return {"machine": setting.machine, "model": setting.model, **flags(setting.plan_used())}


class ScheduledJob:
    """One job: its setting, and what this rank needs for it. ``data`` makes what operations work on, if not the usual."""

    def __init__(
        self,
        world: World,
        setting: Setting,
        way: Way,
        kind: Kind,
        advance: Callable[[str], None],
        data: Callable[[Setting, Transport, tuple[int, ...]], Data] | None = None,
    ) -> None:
        self.world, self.setting, self.way, self.kind, self.advance = world, setting, way, kind, advance
        place, self.note = world.agree(lambda: arrange(setting.layout, world.host))
        self.places, self.place = place, place[world.rank]
        self.comm = world.split(self.place)
        self.schedule, loads = lower_step(setting, 0)
        self.need = memory(setting, loads)
        world.agree(lambda: self._require_room(loads))
        self.transport = world.agree(lambda: Transport(self.comm, self.schedule, way.collectives == "library"))
        self.coordinate = tuple(int(at) for at in np.unravel_index(self.place, setting.mesh.shape))
        self.data = data(setting, self.transport, self.coordinate) if data else self._data()
        self.executor = Executor(self.data, self._device, self.coordinate)
        self.clock, self.watch = Clock.of(world), HostWatch(world)
        self.conditions: Conditions | None = None  # of the hosts, once all steps are done

    def _data(self) -> Data:
        """What operations work on."""
        setting = self.setting
        if self.kind == "model":
            return ModelTraining(setting, self.transport, self.coordinate)
        if self.kind == "tokens":
            return Training(setting, self.schedule, self.transport, self.coordinate)
        return Blank(self.transport, setting.mesh, self.coordinate)

    def _device(self) -> Device:
        if self.way.compute == "sleep":
            return Sleeping(self.setting.machine, self.setting.ranks_per_node)
        return Computing(self.way.compute_scale)

    def _require_room(self, loads: list[Load]) -> None:
        """Raise :class:`DoesNotFit` where the ranks of this host need more memory than it has free, or than the plan may take."""
        if not self.way.allow_overcommit:
            require_fit(self.setting, loads, self.need)
        here = self.world.hosts.count(self.world.hosts[self.world.rank])
        checks = serial_bytes(self.setting) if self.kind == "model" and self.way.check else 0.0
        needed, free = here * (BASE + self.need.total + checks), available_bytes()
        if needed > free:
            fewer = "a smaller model, fewer tokens, " + ("--no-check, " if checks else "")
            raise DoesNotFit(
                f"{self.setting.model.name}: {here} ranks on {self.world.hosts[self.world.rank]} need about"
                f" {needed / 1e9:.1f} GB of its memory, of which {free / 1e9:.1f} GB are free; {fewer.removesuffix(', ')} or"
                " more hosts need less"
            )

    def _require_formats(self) -> None:
        """Raise ``InputError`` where the machine, whose time is taken or whose peak is compared with, has no such format."""
        costs = Costs(self.setting.machine, self.setting.ranks_per_node)
        for operation in every_operation(self.schedule):
            if not isinstance(operation.work, Exchange | PipelineWork):
                costs.of(operation.work)

    def run(self, started: float) -> Run | None:
        """An unmeasured step first, whose results are checked where that is asked for; then the plan's steps."""
        self.world.agree(self._require_formats)
        compared = self._first_step()
        self.tell("first step done")
        plan, steps = self.setting.plan, []
        classes = observed.classes(self.schedule)
        balance, flops, products = LoadStatistics(), [], []
        self.transport.sent[:] = 0
        starts, again = Starts(), plan.steps if self.world.alone else 0
        for step in range(plan.steps):
            schedule = lower_step(self.setting, step)[0] if step else self.schedule
            while True:
                before = self.transport.sent.copy()
                gathered = self.comm.gather(self._step(schedule, step))
                self._require_numbers(step)
                done = None if gathered is None else observed.account(schedule, starts.from_first(gathered), classes)
                late = self.comm.bcast(done is not None and starts.late(done.seconds))
                if not late or not again:
                    break
                again -= 1
                self.transport.sent[:] = before
            tokens = self.comm.gather(self.data.tokens())
            if done is not None:
                assert tokens is not None
                starts.take(late)
                steps.append(done)
                balance.add(observed.loads(tokens, self.setting))
                flops.append(schedule.total_flops() * self.way.compute_scale)
                products.append(schedule.product_flops())
                self.tell(f"step {step + 1} of {plan.steps}: {si(steps[-1].seconds, 's')}")
        self.clock.follow(self.world, at_once=True)
        self.conditions = self.watch.seen()
        sent = self.comm.gather(self.transport.sent)
        clocks = self.comm.gather((self.clock.uncertainty, abs(self.clock.rate)))
        peak = self.comm.gather(peak_rss_bytes())
        if sent is None or clocks is None or peak is None:
            return None
        seconds = [each.seconds for each in steps]
        totals = Totals(
            **summarise(
                self.setting,
                self.need,
                balance,
                seconds,
                [each.exposed for each in steps],
                float(np.mean(flops)),
                products,
                self.way.compute_scale,
            ),
            network=Network(depth="measured", routing=self.setting.machine.fabric.routing),
            links=links(self.setting.machine, self.setting.layout, np.array(sent), sum(seconds), plan.steps),
            events=0,
            warnings=[*self.warnings(), *starts.warnings()],
            measured={
                **self.measured(),
                **compared,
                **starts.plain(seconds),
                "clock_uncertainty_seconds": max(each[0] for each in clocks),
                "clock_drift": max(each[1] for each in clocks),
            },
            wall_seconds=time.perf_counter() - started,
            peak_rss_bytes=max(peak),
        )
        rows = [row._replace(step=step) for step, each in enumerate(steps) for row in each.rows]
        named = {
            name: {"coordinate": dict(zip(self.setting.mesh.axes, at, strict=True)), "ranks": 1}
            for name, at in classes.items()
        }
        inputs = RunInputs((self.setting.machine, self.setting.model))
        return Run(totals, self.setting.plan_used(), named, rows, balance.by_rank(), inputs)

    def tell(self, text: str) -> None:
        """Report progress, on one rank."""
        if self.comm.rank == 0:
            self.advance(text)

    def _first_step(self) -> dict[str, Any]:
        """Execute a step that is not measured; returns how much of it was checked."""
        checks: ModelChecks | ExpertChecks | None = None
        if self.way.check and isinstance(self.data, ModelTraining):
            checks = ModelChecks(self.data)
        elif self.way.check and isinstance(self.data, Training):
            checks = ExpertChecks(self.data)
        self._step(self.schedule, 0)
        if checks is None:
            return {"checked": None}
        found = checks.compare(self.world)
        return {"checked": {key: int(self.comm.allreduce(count)) for key, count in found.items()}}

    def _require_numbers(self, step: int) -> None:
        """End the job, with the ranks' numbers, where what a step has made are no numbers any more."""
        found = self.world.comm.allgather(self.data.no_numbers())
        for what in ("loss", "gradients"):  # sums of gradients carry it to others, losses are a rank's own
            if ranks := [rank for rank, each in enumerate(found) if each == what]:
                text = f"{numbers_text(ranks, self.world)}: {what} of step {step + 1}: no number (NaN or infinite)"
                raise Ended(text if self.world.first else "", 1)

    def _step(self, schedule: Schedule, step: int) -> tuple[observed.Times, float]:
        """Execute a step; returns its times from when it should have begun, on rank 0's clock, and how late this rank was."""
        operations = self.mine(schedule)
        self.data.start_step(step)
        self.executor.clear()
        self.clock.follow(self.world)
        start = self.clock.start_together(self.world)
        times = self.executor.run(operations)
        begin, end = ((each - start.moment) * (1.0 + self.clock.rate) for each in (times.begin, times.end))
        return observed.Times(begin, end, times.nbytes), start.late

    def mine(self, schedule: Schedule) -> tuple[Operation, ...]:
        """What this rank does of a schedule."""
        return unrolled(schedule, self.coordinate)

    def warnings(self) -> list[str]:
        """What to know before believing the run."""
        found = cautions(self.setting, self.need, self.schedule.notes)
        if self.note:
            found.append(self.note)
        if self.conditions is not None:
            found += self.conditions.warnings(self.way.compute == "gemm")
        halves = any(BYTES[formats.gemm] < BYTES["fp32"] for formats in self.setting.plan.precisions.at(0).values())
        if halves and self.way.compute == "gemm":
            found.append("products of halves are computed in single precision: this computer's BLAS has no half")
        return found

    def measured(self) -> dict[str, Any]:
        """How and where the run was made."""
        return {
            **self.world.describe(),
            "compute": self.way.compute,
            "compute_scale": self.way.compute_scale,
            "collectives": self.way.collectives,
            "cluster": os.environ.get("ATHANOR_CLUSTER"),
            **(self.conditions.plain() if self.conditions is not None else {}),
        }
