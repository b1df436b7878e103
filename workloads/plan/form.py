"""The form of a setting: what layouts and schedules depend on. Settings that differ in rates alone have one form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..mesh.mesh_text import mesh_text

if TYPE_CHECKING:
    from .setting import Setting

RATES = {
    "fabric": ("taper", "tapers", "latency_node", "latency_supernode", "latency_top"),
    "node": ("interface_bandwidth",),
}
"""Keys of a machine that say how fast its parts are: no layout depends on them, nor on core groups and calibration."""


def layout_form(setting: Setting) -> str:
    """What decides where ranks live."""
    machine, plan = setting.machine, setting.plan
    asked = [
        plan.placement,
        setting.placement_typed,
        setting.ranks_per_node,
        plan.nodes_per_supernode,
        plan.slow_links,
        plan.slow_uplinks,
    ]
    parts = {part: getattr(machine, part).model_dump(mode="json") for part in RATES}
    shape = {
        part: {key: value for key, value in table.items() if key not in RATES[part]} for part, table in parts.items()
    }
    return json.dumps([machine.nodes, shape, setting.mesh.axes, setting.mesh.shape, *asked], default=str)


def schedule_form(setting: Setting) -> str:
    """What decides the schedules of a setting, beside the step's number.

    Of a machine's rates these are only whether some are known, and, where tokens go once to a node, how much faster it is inside.
    """
    machine, plan, core_group = setting.machine, setting.plan, setting.machine.core_group
    told = [core_group.tiles is not None, core_group.launch is not None, bool(machine.calibration.shard_overhead)]
    rates = [machine.injection] if plan.dispatch == "node-limited" else []
    batch = [setting.batch.tokens, setting.batch.micro_batches, setting.batch.seq_len, setting.own_micro_batch]
    asked = {**plan.to_plain(), "mesh": mesh_text(plan.mesh)}
    return json.dumps(
        [layout_form(setting), setting.model.model_dump(mode="json"), asked, batch, told, rates], default=str
    )
