"""simulate(): machine, model and plan in, Run out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from ..hardware.errors import InternalError
from ..hardware.machine import Machine
from ..hardware.precisions import Precision
from ..workloads.loads.loads import Load, LoadStatistics
from ..workloads.lowering import lower_step
from ..workloads.lowering.simulator_memory import TooManyPairs, peak_rss_bytes, require_room
from ..workloads.memory import Memory, memory, require_fit
from ..workloads.mesh.mesh import Mesh
from ..workloads.model.model import Model
from ..workloads.plan.plan_options import PlanOptions
from ..workloads.plan.run_file import resolved
from ..workloads.plan.setting import Setting
from ..workloads.plan.signatures import documented
from ..workloads.results.run import Run
from ..workloads.results.run_inputs import RunInputs
from ..workloads.results.summary import cautions, summarise
from ..workloads.results.totals import LinkUse, Network, Totals
from ..workloads.results.trace import Rows, StoredRows, TraceRow
from ..workloads.schedule.schedule import Schedule
from ..workloads.schedule.work import PipelineWork
from .engine.noise import Noise
from .engine.step_engine import Engine, StepResult
from .network.links import DUST, LinkLoads
from .network.phases.flow_symmetry import TooManyClasses
from .network.phases.phases import taken_as_slow, with_faster
from .network.phases.transfers import Traffic

MOST_UNEQUAL = 64
"""Ranks that differ in what they send or receive above which ``--depth auto`` looks at links: flow classes are their pairs."""

MOST_UNEQUAL_ROUTES = 16
"""The same where the fabric is no tree: there flow classes share many more links, and rates take longer to find."""


@documented()
def simulate(
    machine: str | Path | Machine,
    model: str | Path | Model | None = None,
    *,
    allow_overcommit: bool | None = None,
    bottleneck: bool = False,
    trace_folder: str | Path | None = None,
    **options: Unpack[PlanOptions],
) -> Run:
    """Simulate training steps of ``model`` on ``machine``.

    Both are a catalogue name, a path to a TOML file, or an object. Without a model, ``machine`` is the path of a run file
    (``athanor.simulate("run.toml")``), whose values ``options`` override. With ``bottleneck``, the summary says what limits the
    step, and by how much it would shorten on better machines, each of which is simulated. The trace of several steps is made
    anew when it is asked for; with a ``trace_folder`` it is kept there as steps are simulated, in a file without a name.

    Raises ``InputError`` for bad input and ``DoesNotFit``
    where a rank's memory is too small, unless ``allow_overcommit``.
    """
    machine, model, chosen, overcommit = resolved(machine, model, options, allow_overcommit)
    return simulate_setting(
        Setting.of(machine, model, chosen),
        allow_overcommit=overcommit,
        bottleneck=bottleneck,
        trace_folder=trace_folder,
    )


def simulate_setting(
    setting: Setting,
    *,
    allow_overcommit: bool = False,
    bottleneck: bool = False,
    trace_folder: str | Path | None = None,
    traced: bool = True,
) -> Run:
    """What :func:`simulate` does with its setting; without ``traced``, the trace of a single step has no rows."""
    started, overcommit = time.perf_counter(), allow_overcommit
    require_room(setting)
    try:
        run = run_setting(setting, setting.plan.depth, overcommit, started, trace_folder=trace_folder, traced=traced)
    except (TooManyClasses, TooManyPairs):
        if setting.plan.depth != "auto":
            raise
        run = run_setting(setting, "links", overcommit, started, trace_folder=trace_folder, traced=traced)
    if not bottleneck:
        return run
    from .bottleneck import bottleneck as limits

    def again(changed: Setting, faster: Mapping[str, float]) -> Totals:
        return run_setting(changed, run.totals.network.depth, True, started, faster).totals

    return replace(run, totals=run.totals.model_copy(update={"bottleneck": limits(setting, run.totals, again)}))


def run_setting(
    setting: Setting,
    depth: str,
    allow_overcommit: bool,
    started: float,
    faster: Mapping[str, float] | None = None,
    trace_folder: str | Path | None = None,
    traced: bool = True,
) -> Run:
    """The steps of a setting at a depth, and what they tell together; ``faster`` are factors of the rates of levels of links."""
    plan = setting.plan
    needs: list[Memory] = []
    figures, total, notes = list[_Figures](), LinkLoads(()), tuple[str, ...]()
    products: list[dict[Precision, float]] = []
    balance = LoadStatistics()
    kept = StoredRows(trace_folder) if trace_folder is not None and plan.steps > 1 else None
    for step in range(plan.steps):
        schedule, loads = lower_step(setting, step, pairwise=depth == "message")
        needs = [max([memory(setting, loads), *needs], key=lambda each: each.total)]
        if not allow_overcommit:
            require_fit(setting, loads, needs[-1])
        balance.add(loads)
        products.append(schedule.product_flops())
        noise = Noise.of(setting, step)
        if not step:
            depth = _depth(depth, setting, loads)
            known = None if faster else setting.kept
            traffic = Traffic.of(setting.machine, setting.layout, depth, known) if depth != "message" else None
            observed = _observed(setting.mesh, schedule, balance, noise)
            if faster and traffic:
                traffic.phases = with_faster(traffic.phases, faster)
        told = traced if plan.steps == 1 else kept is not None
        result = _run_step(setting, schedule, traffic, noise, observed if told else {})
        if traffic and plan.steps > 1:
            traffic.forget()
        if kept is not None:
            kept.add(row._replace(step=step) for row in result.rows)
        figures.append(_Figures(result.seconds, result.exposed, schedule.total_flops(), result.events))
        notes = notes or result.notes  # what the engine says of the first step of which it says something
        total.kinds = result.loads.kinds
        total.plus(result.loads, 1.0)
    (need,), seconds = needs, [each.seconds for each in figures]
    totals = Totals(
        **summarise(
            setting,
            need,
            balance,
            seconds,
            [each.exposed for each in figures],
            float(np.mean([each.flops for each in figures])),
            products,
        ),
        **_interval(setting.machine, setting.model.experts, float(np.mean(seconds))),
        network=Network(depth=depth, routing=setting.machine.fabric.routing),
        links=_possible(_links(total, sum(seconds), plan.steps), setting, sum(seconds)),
        events=sum(each.events for each in figures),
        warnings=cautions(setting, need, [*schedule.notes, *notes, *_slow(traffic, setting)]),
        wall_seconds=time.perf_counter() - started,
        peak_rss_bytes=peak_rss_bytes(),
    )

    def again() -> Iterator[TraceRow]:
        for step in range(plan.steps):
            schedule, _ = lower_step(setting, step, pairwise=depth == "message")
            for row in _run_step(setting, schedule, traffic, Noise.of(setting, step), observed).rows:
                yield row._replace(step=step)

    rows: Sequence[TraceRow] = result.rows if plan.steps == 1 else Rows(again) if kept is None else kept
    classes, load = _classes(setting.mesh, observed), balance.by_rank()
    return Run(totals, setting.plan_used(), classes, rows, load, RunInputs((setting.machine, setting.model)))


def _slow(traffic: Traffic | None, setting: Setting) -> list[str]:
    """What is approximate about named slow cards."""
    told = taken_as_slow(traffic.phases, setting.layout) if traffic else ""
    return [told] if told else []


class _Figures(NamedTuple):
    """What is kept of a step: its trace is made anew where it is asked for, so that a long run takes the memory of a step."""

    seconds: float
    exposed: dict[str, dict[str, float]]
    flops: float
    events: int


def _run_step(
    setting: Setting,
    schedule: Schedule,
    traffic: Traffic | None,
    noise: Noise,
    observed: dict[str, tuple[int, ...]],
) -> StepResult:
    """A step; rows are told of the ``observed`` ranks."""
    if traffic and traffic.depth == "bound":
        from .engine.bound_engine import BoundEngine

        return BoundEngine(setting.machine, schedule, traffic, noise, observed).run()
    if traffic:
        return Engine(setting.machine, schedule, traffic, noise, observed).run()
    from .engine.rank_engine import RankByRank

    return RankByRank(setting.machine, schedule, noise, observed).run()


def _interval(machine: Machine, experts: int, seconds: float) -> dict[str, float]:
    """Between which times nine of ten measured steps lie, where the machine's constants were fitted to published runs."""
    if machine.interval is None:
        return {}
    multiples = machine.interval.of(experts)
    return {"step_seconds_low": seconds * multiples.low, "step_seconds_high": seconds * multiples.high}


def _classes(mesh: Mesh, observed: dict[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """The observed ranks as a Run tells them."""
    return {
        name: {
            "coordinate": dict(zip(mesh.axes, coordinate, strict=True)),
            "ranks": mesh.ranks if name == "all" else 1,
        }
        for name, coordinate in observed.items()
    }


def _depth(depth: str, setting: Setting, loads: list[Load]) -> str:
    """The chosen depth, or fluid where ranks differ little enough that their flow classes are few, else links."""
    if depth != "auto":
        return depth
    unequal = max((np.size(amount) for load in loads for amount in (load.sent, load.received)), default=1)
    most = MOST_UNEQUAL if setting.machine.fabric.is_tree else MOST_UNEQUAL_ROUTES
    return "fluid" if unequal <= most else "links"


def _observed(mesh: Mesh, schedule: Schedule, balance: LoadStatistics, noise: Noise) -> dict[str, tuple[int, ...]]:
    """The ranks whose times the trace shows: all as one where they are alike, else the most, median and least loaded.

    Of a pipeline's stages these are the first, the last and the one with the most to compute.
    """
    ranks = _by_load(mesh, balance, noise)
    if mesh.size("pp") == 1:
        return ranks
    (axis,), last = mesh.positions(("pp",)), mesh.size("pp") - 1
    flops = sum(np.asarray(each.work.flops) for each in schedule.outline if isinstance(each.work, PipelineWork))
    busiest = int(np.argmax(flops)) if np.size(flops) > 1 else 0
    stages = {"first stage": 0, "last stage": last}
    if busiest not in (0, last):
        stages["busiest stage"] = busiest

    def at_stage(rank: tuple[int, ...], stage: int) -> tuple[int, ...]:
        return tuple(stage if place == axis else number for place, number in enumerate(rank))

    *others, heaviest = ranks.items()
    found = {name: at_stage(heaviest[1], stage) for name, stage in stages.items()}
    return found | {name: at_stage(rank, busiest) for name, rank in others}


def _by_load(mesh: Mesh, balance: LoadStatistics, noise: Noise) -> dict[str, tuple[int, ...]]:
    """Ranks by the tokens that their experts carry and the time that their nodes take."""
    burden = noise.slowness() * balance.received
    if np.size(burden) == 1:
        alike = not noise.jitter
        return {"all" if alike else "rank 0": (0,) * len(mesh.shape)}
    order = np.argsort(np.asarray(burden), axis=None, kind="stable")
    places = {"lightest": order[0], "median": order[len(order) // 2], "heaviest": order[-1]}
    return {name: tuple(int(at) for at in np.unravel_index(place, np.shape(burden))) for name, place in places.items()}


ROUNDING = 1e-6
"""By how much a link's use may come out above 1: what clocks and bytes are rounded by."""


def _possible(links: list[LinkUse], setting: Setting, seconds: float) -> list[LinkUse]:
    """The same links; raises :class:`InternalError` where one would have carried more than it can in all steps' ``seconds``."""
    burst = (setting.machine.calibration.link_burst or 0.0) * setting.plan.steps / seconds
    for link in links:
        if link.max_utilisation > 1 + ROUNDING + burst:
            raise InternalError(
                f"{link.kind} number {link.busiest} carries {link.max_utilisation:.1%} of what it can in this step, which no link"
                f" does: please report it, with the plan {setting.model.name} on {setting.machine.name},"
                f" {setting.plan.to_plain()}"
            )
    return links


def _links(total: LinkLoads, seconds: float, steps: int) -> list[LinkUse]:
    """Use of each kind of link over all steps: how many, their bytes, and the share of the time that they are busy.

    Links that carry no more than what rounding leaves are not used.
    """
    rows, loaded = [], list(total.busy())
    longest = max((float(busy.max()) for _, busy in loaded), default=0.0)
    for kind, busy in loaded:
        used = busy > longest * DUST
        if not used.any():
            continue
        rows.append(
            LinkUse(
                kind=kind.name,
                links=int(used.sum()),
                capacity_bytes_per_second=kind.capacity,
                bytes_per_step=float(total.loads[kind.name].sum()) / steps,
                mean_utilisation=float(busy[used].mean()) / seconds,
                max_utilisation=float(busy.max()) / seconds,
                busiest=int(busy.argmax()),
                level=kind.level,
            )
        )
    return rows
