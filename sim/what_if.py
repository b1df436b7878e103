"""A step on machines with faster or slower links and arithmetic, and with more or less jitter: a grid, each point simulated."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..hardware.errors import InputError
from ..hardware.machine import Machine
from ..workloads.model.model import Model
from ..workloads.plan.setting import Setting
from ..workloads.results.totals import Totals
from .bottleneck import Change
from .simulate import run_setting
from .workers import Workers

LINKS, ARITHMETIC, JITTER = "links", "arithmetic", "jitter"

FACTORS = (0.5, 1.0, 1.5, 2.0, 4.0)
"""How many times what they are links and arithmetic become; 1 is as it is."""

NOISE = (0.5, 1.0, 2.0, 4.0)
"""The same of the jitter."""


@dataclass(frozen=True)
class Knob:
    """What is changed, and the factors that it is changed by; 1 is among them."""

    what: str
    factors: tuple[float, ...]


@dataclass(frozen=True)
class KnobGrid:
    """Totals of a step for every combination of the axes' factors, the last axis fastest; the reason where there is no step."""

    axes: tuple[Knob, ...]
    points: tuple[Totals | str, ...]


@dataclass(frozen=True)
class _Question:
    machine: Machine
    model: Model
    plan: Mapping[str, Any]
    levels: tuple[str, ...]
    factors: Mapping[str, float]


def what_if(machine: Machine, model: Model, plan: Mapping[str, Any], crew: Workers) -> KnobGrid:
    """One step of a plan, and the same on the machines around: links of all levels, and arithmetic, so many times as fast.

    Raises :class:`InputError` for a plan that is none. Memory is taken to be large enough, as the run's own was.
    """
    chosen = {key: value for key, value in plan.items() if value is not None} | {"steps": 1}
    setting = Setting.of(machine, model, chosen)
    here = run_setting(setting, setting.plan.depth, True, time.perf_counter()).totals
    axes, levels = _axes(setting, here), tuple(dict.fromkeys(row.level for row in here.links))
    chosen["depth"] = here.network.depth
    places = [
        dict(zip((axis.what for axis in axes), place, strict=True)) for place in product(*(a.factors for a in axes))
    ]
    asked = [_Question(machine, model, chosen, levels, factors) for factors in places]
    found = dict(crew.results(_point, asked))
    return KnobGrid(axes, tuple(found[number] for number in range(len(asked))))


def _axes(setting: Setting, totals: Totals) -> tuple[Knob, ...]:
    """What can be changed: links where some carry bytes and are known by level, jitter where there is any."""
    found = [Knob(ARITHMETIC, FACTORS)]
    if totals.links and totals.network.depth != "message":  # every message by itself knows no levels
        found.insert(0, Knob(LINKS, FACTORS))
    if setting.plan.jitter:
        found.append(Knob(JITTER, NOISE))
    return tuple(found)


def _point(asked: _Question) -> Totals | str:
    """The totals of one point, or why there are none."""
    factors, setting = asked.factors, Setting.of(asked.machine, asked.model, asked.plan)
    rates = setting.machine.core_group.peak.items()
    peaks = {f"core_group.peak.{name}": factors[ARITHMETIC] * rate for name, rate in rates}
    noise = {"jitter": setting.plan.jitter * factors[JITTER]} if JITTER in factors else {}
    faster = dict.fromkeys(asked.levels, factors[LINKS]) if LINKS in factors else {}
    try:
        changed = Change("", faster=faster, machine=peaks, plan=noise).applied(setting)
        return run_setting(changed, setting.plan.depth, True, time.perf_counter(), faster).totals
    except InputError as wrong:
        return str(wrong)
