"""What limits a step, and by how much it would shorten on a better machine: each change is simulated, none is guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..hardware.fabrics.fabric import INTERFACES
from ..workloads.plan.setting import Setting
from ..workloads.results.totals import Bottleneck, Totals, WhatIf
from ..workloads.schedule.operation import EXCHANGED

TWICE = 2.0


@dataclass(frozen=True)
class Change:
    """A better machine, or a quieter one: how many times their bandwidth levels of links have, and keys of machine and plan."""

    name: str
    level: str = ""
    faster: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)

    def applied(self, setting: Setting) -> Setting:
        """The setting with the changed machine and plan."""
        machine = setting.machine.changed(self.machine) if self.machine else setting.machine
        return replace(setting, machine=machine, plan=setting.plan.changed(**self.plan))


def changes(setting: Setting, totals: Totals) -> Iterator[Change]:
    """Twice the bandwidth of each level that carries bytes, one more uplink or card, faster core groups, no noise."""
    machine, used = setting.machine, list(dict.fromkeys(row.level for row in totals.links))
    uplinks = machine.fabric.uplinks_by_level
    for level in used:
        if totals.network.depth == "message":
            break  # every message by itself knows no levels
        yield Change(f"2 x the bandwidth of {level}", level, {level: TWICE})
        if level in uplinks:
            yield Change(f"one more uplink of {level}", level, {level: 1 + 1 / uplinks[level]})
        if level == INTERFACES:
            cards = machine.node.interfaces
            yield Change("one more card a node", level, {level: 1 + 1 / cards})
    group = machine.core_group
    yield Change("2 x memory bandwidth", machine={"core_group.memory_bandwidth": TWICE * group.memory_bandwidth})
    peaks = {f"core_group.peak.{name}": TWICE * rate for name, rate in group.peak.items()}
    yield Change("2 x peak", machine=peaks)
    if setting.plan.jitter or setting.plan.speed_spread:
        yield Change("no jitter", plan={"jitter": 0.0, "speed_spread": 0.0})


def bottleneck(setting: Setting, totals: Totals, run: Callable[[Setting, Mapping[str, float]], Totals]) -> Bottleneck:
    """What limits the steps that ``totals`` tell of.

    The level of links whose doubling shortens the step most limits its exposed communication; none does where no doubling
    shortens it. Every change is simulated: ``run(setting, faster)`` is a run like that of ``totals``, with levels
    of links in ``faster`` so many times as fast.
    """
    found, best = [], dict.fromkeys(dict.fromkeys(row.level for row in totals.links), 0.0)
    for change in changes(setting, totals):
        seconds = run(change.applied(setting), change.faster).step_seconds
        gain = 1 - seconds / totals.step_seconds
        found.append(WhatIf(change=change.name, step_seconds=seconds, gain=gain))
        if change.faster.get(change.level) == TWICE:
            best[change.level] = gain
    level = max(best, key=lambda name: best[name], default=None)
    limits = level is not None and best[level] > 0
    rows = [row for row in totals.links if row.level == level]
    return Bottleneck(
        level=level if limits else None,
        utilisation=max(row.max_utilisation for row in rows) if limits else None,
        exposed_seconds=sum(totals.breakdown[category] for category in EXCHANGED),
        changes=sorted(found, key=lambda each: -each.gain),
    )
