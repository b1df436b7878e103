"""Steps of a campaign, from the simulator: as planned, beside slow nodes, under a power cap, and with fewer groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ...hardware.site.faults import Component
from ...workloads.mesh.axes import DATA
from ...workloads.model.model import Model
from ...workloads.plan.setting import Setting
from ...workloads.results.run import Run
from ..simulate import simulate

STEPS_THAT_DIFFER = 3
"""Steps that are simulated where one differs from the next."""

FEWER = (1, 2, 4, 8, 16, 32, 64, 128)
"""Groups fewer with which steps are simulated; between them speeds are interpolated."""

MOST_LOST = 0.5
"""Share of the groups without which an elastic job goes on."""


@dataclass
class CampaignSteps:
    """What the simulator says of steps of one plan; each kind of them is simulated once.

    ``run`` is that of the plan itself, over as many steps as were asked for or differ.
    """

    machine: Machine
    model: Model
    options: Mapping[str, Any]
    overcommit: bool
    steps: int | None = None
    _known: dict[tuple[tuple[str, Any], ...], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.setting = Setting.of(self.machine, self.model, self.options)
        plan = self.setting.plan
        differ = plan.jitter > 0 or plan.drift > 0 or len(plan.precisions.names) > 1
        count = self.steps or (plan.steps if plan.steps > 1 else STEPS_THAT_DIFFER if differ else 1)
        self.run: Run = self._simulated({"steps": count})
        self.each = np.array(self.run.totals.each_step_seconds)

    @property
    def seconds(self) -> float:
        """Mean seconds of a step."""
        return float(self.each.mean())

    @property
    def tokens(self) -> float:
        """Tokens of a step."""
        return float(self.setting.batch.tokens * self.setting.mesh.replicas)

    def speed_beside(self, component: Component) -> float:
        """How fast steps are beside a slow node, slow links of it, or of a supernode, as a share of what they are."""
        plan = self.setting.plan
        if component.slowdown:
            return self._share({"slow_nodes": _with_node(plan.slow_nodes, component.slowdown)})
        if component.uplink_share:
            if not self.setting.machine.fabric.is_tree:
                raise InputError(
                    f"--faults: {component.name}: uplink_share: {self.setting.machine.name} is no tree of switches"
                )
            return self._share({"slow_uplinks": _with_node(plan.slow_uplinks, component.uplink_share)})
        assert component.link_share
        return self._share({"slow_links": _with_node(self.setting.plan.slow_links, component.link_share)})

    @property
    def setting_seconds(self) -> float:
        """Seconds of the steps of the plan as it stands, which others are compared with."""
        return float(self.each[: self.setting.plan.steps].mean())

    def speeds_with_fewer(self, kept: bool) -> tuple[float, ...]:
        """Speed with 0, 1, … data-parallel groups fewer, up to half of them; the batch is ``kept``, or smaller.

        Speed is work a second: where the batch is smaller, a step is less of it. A group whose node is lost is lost as a whole.
        Raises :class:`InputError` where the mesh has no groups to lose.
        """
        axis = next((name for name in self.setting.mesh.axes if name in DATA and name != "ep"), "")
        groups = self.setting.mesh.size(axis) if axis else 1
        if groups < 2:
            raise InputError(
                f"--policy elastic: --mesh {self.setting.mesh} has no data-parallel groups (dp) to go on with"
            )
        most = max(1, int(groups * MOST_LOST))
        at = sorted({0, most, *(each for each in FEWER if each < most)})
        found = [1.0 if not each else self._with_groups(axis, groups, each, kept) for each in at]
        return tuple(np.interp(np.arange(most + 1), at, found).tolist())

    def _with_groups(self, axis: str, groups: int, fewer: int, kept: bool) -> float:
        batch = self.setting.batch
        left = groups - fewer
        micro = ceil(batch.micro_batches * groups / left) if kept else batch.micro_batches
        sizes = self.setting.mesh.sizes | {axis: left}
        if "row" in sizes:
            sizes = {name: size for name, size in sizes.items() if name not in ("row", "col")}
            sizes["tp"] = self.setting.mesh.size("row", "col")
        options = {
            "mesh": sizes,
            "tokens_per_rank": batch.micro_tokens * micro,
            "global_batch": None,
            "micro_batch": batch.micro_tokens // batch.seq_len or None,
        }
        seconds = self._simulated(options).totals.step_seconds
        share = 1.0 if kept else left / groups
        return min(1.0, share * self.setting_seconds / seconds)

    def _share(self, options: Mapping[str, Any]) -> float:
        key = tuple(sorted(options.items()))
        if key not in self._known:
            seconds = self._simulated({**options, "steps": self.setting.plan.steps}).totals.step_seconds
            self._known[key] = min(1.0, self.setting_seconds / seconds)
        return self._known[key]

    def _simulated(self, options: Mapping[str, Any]) -> Run:
        given = {**self.options, **options}
        if options.get("tokens_per_rank"):
            given["global_batch"] = None
        return simulate(self.machine, self.model, allow_overcommit=self.overcommit, **given)


def _with_node(named: str, factor: float) -> str:
    """Node 0 with this factor, beside other nodes that are named."""
    text = f"0:{factor:g}"
    return (
        text
        if named == "none"
        else f"{text},{','.join(each for each in named.split(',') if not each.startswith('0:'))}"
    )
