"""What a campaign draws: watts of a node by what it does, from the step's own breakdown and from the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...hardware.machine import Machine
from ...hardware.site.power import Power
from ...workloads.results.run import Run

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


def step_states(run: Run) -> dict[str, float]:
    """Share of a step that a node is in each state, the mean over ranks."""
    breakdown = run.totals.breakdown
    whole = sum(breakdown.values())
    found = dict.fromkeys(STATES, 0.0)
    bound = memory_bound_share(run)
    for category, seconds in breakdown.items():
        if category == "compute":
            found["memory"] += bound * seconds / whole
            found["compute"] += (1.0 - bound) * seconds / whole
        else:
            found[STATE_OF[category]] += seconds / whole
    return found


def memory_bound_share(run: Run) -> float:
    """Share of the computing time whose operations are bound by memory; what the trace does not tell apart counts as not."""
    known = {"memory": 0.0, "compute": 0.0}
    for row in run.trace:
        if row.step:
            break  # steps are alike in this, and rows of each further one are made by simulating it
        if row.category == "compute" and row.limit in known:
            known[row.limit] += row.end - row.start
    whole = sum(known.values())
    return known["memory"] / whole if whole else 0.0


@dataclass(frozen=True)
class Draw:
    """Watts of the whole site, the building included, in each entry of the ledger."""

    watts: Mapping[str, float]

    @classmethod
    def of(cls, power: Power, states: Mapping[str, float], nodes: int, spares: int = 0) -> Draw:
        """Of so many nodes that train, and spares that wait."""
        step = sum(share * float(getattr(power, state)) for state, share in states.items())
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
