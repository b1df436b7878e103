"""simulate(): machine, model and plan in, Run out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hardware.machine import Machine
from ..hardware.precisions import Precision
from ..workloads.loads import Load
from ..workloads.lowering import lower_step
from ..workloads.memory import Memory, memory, require_fit
from ..workloads.mesh import Mesh
from ..workloads.model import Model
from ..workloads.plan import Plan
from ..workloads.run import Run
from ..workloads.setting import Setting
from .engine import Engine, StepResult
from .exposure import CATEGORIES, PHASES
from .limits import peak_rss_bytes, require_room
from .links import LinkLoads
from .noise import Noise
from .traffic import Traffic

MOST_UNEQUAL = 64
"""Ranks that differ in what they send or receive above which ``--depth auto`` takes the bound: flow classes are their pairs."""


def simulate(
    machine: str | Path | Machine, model: str | Path | Model, *, allow_overcommit: bool = False, **options: Any
) -> Run:
    """Simulate training steps of ``model`` on ``machine``.

    Both are a catalogue name, a path to a TOML file, or an object. ``options`` are those of
    :class:`~athanor.workloads.plan.Plan`; what is left out comes from the model's recommended plan. Raises
    ``InputError`` for bad input and ``DoesNotFit`` where a rank's memory is too small, unless ``allow_overcommit``.
    """
    started = time.perf_counter()
    setting = Setting.of(machine, model, options)
    require_room(setting)
    plan = setting.plan
    results: list[StepResult] = []
    loads: list[Load] = []
    flops: list[float] = []
    traffic: Traffic | None = None
    need: Memory | None = None
    observed: dict[str, tuple[int, ...]] = {}
    for step in range(plan.steps):
        schedule, step_loads = lower_step(setting, step)
        own = memory(setting, step_loads)
        if not allow_overcommit:
            require_fit(setting, step_loads, own)
        need = own if need is None or own.total > need.total else need
        noise = Noise(setting.layout, plan.speed_spread, plan.jitter, plan.seed, step)
        if traffic is None:
            traffic = Traffic(setting.machine, setting.layout, _depth(plan, step_loads))
            observed = _observed(setting.mesh, step_loads, noise)
        results.append(Engine(setting.machine, setting.layout, traffic, noise, observed).run(schedule))
        loads += step_loads
        flops.append(schedule.total_flops())
    assert traffic is not None and need is not None
    totals = _totals(setting, traffic, need, results, loads, float(np.mean(flops)))
    totals["warnings"] = _warnings(setting, traffic, need)
    totals["wall_seconds"] = time.perf_counter() - started
    totals["peak_rss_bytes"] = peak_rss_bytes()
    rows = [(step, *row) for step, result in enumerate(results) for row in result.rows]
    classes = {
        name: {
            "coordinate": dict(zip(setting.mesh.axes, coordinate, strict=True)),
            "ranks": setting.mesh.ranks if name == "all" else 1,
        }
        for name, coordinate in observed.items()
    }
    return Run(totals, plan.model_dump(), classes, rows, totals["links"], _expert_load(loads[0]))


def _depth(plan: Plan, loads: list[Load]) -> str:
    """The chosen depth, or fluid where ranks differ little enough that their flow classes are few."""
    if plan.depth != "auto":
        return plan.depth
    unequal = max(np.size(amount) for load in loads for amount in (load.sent, load.received))
    return "fluid" if unequal <= MOST_UNEQUAL else "bound"


def _observed(mesh: Mesh, loads: list[Load], noise: Noise) -> dict[str, tuple[int, ...]]:
    """The ranks whose times the trace shows: all as one where they are alike, else the most, median and least loaded."""
    burden = noise.slowness() * sum(load.received for load in loads)
    if np.size(burden) == 1:
        alike = not noise.jitter
        return {"all" if alike else "rank 0": (0,) * len(mesh.shape)}
    order = np.argsort(np.asarray(burden), axis=None, kind="stable")
    places = {"lightest": order[0], "median": order[len(order) // 2], "heaviest": order[-1]}
    return {name: tuple(int(at) for at in np.unravel_index(place, np.shape(burden))) for name, place in places.items()}


def _totals(
    setting: Setting, traffic: Traffic, need: Memory, results: list[StepResult], loads: list[Load], flops: float
) -> dict[str, Any]:
    """The summary of the design's contract; times are means over the steps."""
    seconds = float(np.mean([result.seconds for result in results]))
    layout, mesh, batch, machine = setting.layout, setting.mesh, setting.batch, setting.machine
    fastest = max(machine.processor(setting.ranks_per_node).peak(precision) for precision in _precisions(setting))
    counts = setting.model.parameters
    exposed = _mean([result.exposed for result in results])
    return {
        "machine": machine.name,
        "model": setting.model.name,
        "mesh": dict(zip(mesh.axes, mesh.shape, strict=True)),
        "placement": setting.plan.placement,
        "ranks": mesh.ranks,
        "nodes": layout.nodes,
        "supernodes": layout.supernodes,
        "step_seconds": seconds,
        "tokens_per_second": mesh.ranks * batch.tokens / seconds,
        "flops_per_second": flops / seconds,
        "peak_fraction": flops / seconds / (mesh.ranks * fastest),
        "flops_per_step": flops,
        "tokens_per_rank": batch.tokens,
        "micro_batches": batch.micro_batches,
        "parameters": {**counts.model_dump(), "total": counts.total},
        "breakdown": {category: sum(exposed[phase][category] for phase in PHASES) for category in CATEGORIES},
        "phases": {phase: sum(exposed[phase].values()) for phase in PHASES},
        "breakdown_by_phase": exposed,
        "memory_per_rank_bytes": need.table(),
        "fits": need.fits,
        "load_balance": {
            "max_over_mean": max(load.max_over_mean for load in loads),
            "wanted_max_over_mean": max(load.wanted_max_over_mean for load in loads),
            "moved_fraction": float(np.mean([load.moved_fraction for load in loads])),
            "dropped_fraction": float(np.mean([load.dropped_fraction for load in loads])),
        },
        "network": {"depth": traffic.depth, "routing": machine.fabric.routing},
        "links": _links(results),
        "steps": [result.seconds for result in results],
        "events": sum(result.events for result in results),
        "seed": setting.plan.seed,
    }


def _precisions(setting: Setting) -> set[Precision]:
    return {formats.compute for formats in setting.plan.precisions.at(0).values()}


def _mean(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means of equally shaped tables of exposed seconds."""
    return {
        phase: {key: float(np.mean([table[phase][key] for table in tables])) for key in row}
        for phase, row in tables[0].items()
    }


def _expert_load(load: Load) -> dict[str, list[float]]:
    """Load of the ranks of one group in the first layer, over its mean and in falling order, before and after balancing."""
    mean = max(load.wanted.mean(), 1e-300)
    return {
        "wanted": _thinned(np.sort(load.wanted)[::-1] / mean),
        "carried": _thinned(np.sort(load.carried)[::-1] / mean),
    }


def _thinned(values: NDArray[np.float64], most: int = 512) -> list[float]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    return [float(value) for value in values[places]]


def _links(results: list[StepResult]) -> list[dict[str, Any]]:
    """Use of each kind of link over all steps: how many, their bytes, and the share of the time that they are busy."""
    seconds = sum(result.seconds for result in results)
    total = LinkLoads(results[0].loads.links)
    for result in results:
        total.plus(result.loads, 1.0)
    rows = []
    for kind, busy in total.busy():
        used = busy > 0
        rows.append(
            {
                "kind": kind.name,
                "links": int(used.sum()),
                "capacity_bytes_per_second": kind.capacity,
                "bytes_per_step": float(total.loads[kind.name].sum()) / len(results),
                "mean_utilisation": float(busy[used].mean()) / seconds,
                "max_utilisation": float(busy.max()) / seconds,
                "busiest": int(busy.argmax()),
            }
        )
    return rows


def _warnings(setting: Setting, traffic: Traffic, need: Memory) -> list[str]:
    notes = list(traffic.warnings)
    if not need.fits:
        notes.append(f"needs {need.total / 1e9:.1f} GB a rank of {need.capacity / 1e9:.1f} GB: would not run")
    if unsourced := setting.machine.unsourced():
        more = f" and {len(unsourced) - 1} more" if len(unsourced) > 1 else ""
        notes.append(f"{setting.machine.name} gives no source for {unsourced[0]}{more}")
    if setting.batch.micro_tokens < setting.batch.seq_len:
        notes.append(
            f"a micro-batch of {setting.batch.micro_tokens} tokens is less than a sequence of {setting.batch.seq_len}"
        )
    return notes
