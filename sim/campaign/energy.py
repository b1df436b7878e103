"""What a campaign draws: watts of a node by what it does, from the step's own breakdown and from the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ...hardware.machine import Machine
from ...hardware.site.power import Power
from ...workloads.lowering import lower_step
from ...workloads.plan.setting import Setting
from ...workloads.results.run import Run
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.operation import COMPUTE, Operation
from ...workloads.schedule.work import Exchange, PipelineWork

STATES = ("idle", "compute", "memory", "communication", "checkpoint")

STATE_OF: Mapping[str, str] = {
    "all_to_all": "communication",
    "gradient_sync": "communication",
    "tensor_parallel": "communication",
    "pipeline_transfer": "communication",
    "offload": "memory",
    "optimizer": "memory",
    "balancing": "memory",
    "launch": "idle",
    "pipeline_bubble": "idle",
    "imbalance": "idle",
    "other": "idle",
}
"""What a node does in each category of a step's time; ``compute`` is divided by what limits its operations."""

ENTRY_STATE: Mapping[str, str] = {
    "checkpoint": "checkpoint",
    "io": "idle",
    "detection": "idle",
    "restart": "idle",
    "repair_wait": "idle",
}
"""What a node does in those entries of the ledger that are no steps."""

STEPS = ("productive", "recomputed", "degraded")


def step_states(setting: Setting, run: Run) -> dict[str, float]:
    """Share of a step that a node is in each state, the mean over ranks."""
    return _states(run.totals.breakdown, memory_bound_share(setting))


def phase_states(setting: Setting, run: Run) -> dict[str, tuple[float, dict[str, float]]]:
    """Seconds of each phase of a step (forward, backward, update), and shares of it that a node is in each state."""
    bound, totals = memory_bound_share(setting), run.totals
    parts = {phase: (totals.phases[phase], each) for phase, each in totals.breakdown_by_phase.items()}
    return {
        phase: (seconds, _states(each, bound)) for phase, (seconds, each) in parts.items() if sum(each.values()) > 0
    }


def _states(breakdown: Mapping[str, float], bound: float) -> dict[str, float]:
    """Shares of states of so many seconds by category, where ``bound`` is that of memory in computing."""
    whole = sum(breakdown.values())
    found = dict.fromkeys(STATES, 0.0)
    for category, seconds in breakdown.items():
        if category == "compute":
            found["memory"] += bound * seconds / whole
            found["compute"] += (1.0 - bound) * seconds / whole
        else:
            found[STATE_OF[category]] += seconds / whole
    return found


def memory_bound_share(setting: Setting) -> float:
    """Share of a step's computing time whose operations memory bounds; blocks of pipelines count as often as they run."""
    schedule, _ = lower_step(setting)
    costs = Costs(setting.machine, setting.ranks_per_node, setting.layout.present)
    known = {"memory": 0.0, "compute": 0.0}

    def add(operations: Iterable[Operation], times: float) -> None:
        for each in operations:
            if isinstance(each.work, PipelineWork):
                for block, runs in zip(each.work.blocks, each.work.runs, strict=True):
                    add(block, runs)
            elif each.category == "compute" and each.stream == COMPUTE and not isinstance(each.work, Exchange):
                timed = costs.of(each.work)
                if timed.limit in known:
                    known[timed.limit] += times * float(np.mean(timed.seconds))

    add(schedule.operations, 1.0)
    whole = sum(known.values())
    return known["memory"] / whole if whole else 0.0


def node_watts(power: Power, states: Mapping[str, float]) -> float:
    """Mean watts of a node over a span with these shares of states."""
    return sum(share * float(getattr(power, state)) for state, share in states.items())


def swings(
    power: Power, phases: Mapping[str, tuple[float, Mapping[str, float]]], nodes: int, save: float, steps: int = 3
) -> tuple[tuple[float, float, str, float], ...]:
    """(start, end, what, watts of the site) of some steps, phase by phase, and of the checkpoint after them."""
    each = [(name, seconds, node_watts(power, states)) for name, (seconds, states) in phases.items()]
    found, now = list[tuple[float, float, str, float]](), 0.0
    for name, seconds, watts in [*steps * each, ("checkpoint", save, power.checkpoint)]:
        found.append((now, now + seconds, name, power.pue * nodes * (watts + power.switches)))
        now += seconds
    return tuple(found)


@dataclass(frozen=True)
class Draw:
    """Watts of the whole site, the building included, in each entry of the ledger."""

    watts: Mapping[str, float]

    @classmethod
    def of(cls, power: Power, states: Mapping[str, float], nodes: int, spares: int = 0) -> Draw:
        """Of so many nodes that train, and spares that wait."""
        step = node_watts(power, states)
        node = {
            **dict.fromkeys(STEPS, step),
            **{entry: float(getattr(power, state)) for entry, state in ENTRY_STATE.items()},
        }
        waiting = spares * (power.idle + power.switches)
        return cls({entry: power.pue * (nodes * (each + power.switches) + waiting) for entry, each in node.items()})

    def joules(self, ledger: Mapping[str, float]) -> float:
        """Energy of a campaign with this ledger."""
        return sum(self.watts[entry] * seconds for entry, seconds in ledger.items())


def capped_machine(machine: Machine, power: Power, cap: float) -> tuple[Machine, Power]:
    """The machine at the frequency that a cap on each node's power forces, and what its nodes then draw.

    What its core groups compute in a second goes with the frequency; memory and network stay as they are. Raises
    ``ValueError`` for a cap that no frequency keeps.
    """
    share = power.frequency_under(cap)
    peaks = {f"core_group.peak.{name}": share * rate for name, rate in machine.core_group.peak.items()}
    return machine.changed(peaks), power.capped(cap)
