"""What a running cluster looks like from outside: its shape, and what the kernel says of its links."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from .state import State
from .tree import Port, links

SHAPER = re.compile(
    r"class htb .*? rate (?P<rate>\S+) .*?Sent (?P<sent>\d+) bytes .*?\(dropped (?P<dropped>\d+)", re.DOTALL
)
"""What tc says of an htb class."""


def look(state: State) -> dict[str, Any]:
    """A cluster as plain data: name, shape, holder, nodes, and of each end of a link its rate and what it has sent."""
    shape = state.shape
    about = f"{shape.supernodes} supernodes of {shape.nodes} nodes, taper {shape.taper:.4g}"
    found: dict[str, Any] = {"name": state.name, "shape": shape.model_dump(), "holder": None, "nodes": [], "links": []}
    if state.holder is None:
        return {**found, "about": "plain TCP over the loopback device, no topology"}
    ends = [(one, other) for low, high in links(shape) for one, other in ((low, high), (high, low))]
    return {
        **found,
        "about": about,
        "holder": state.holder.pid,
        "nodes": [{"name": n.name, "address": n.address, "supernode": n.supernode} for n in shape.all_nodes],
        "links": [
            {"from": one.namespace, "to": other.namespace, **_shaped(state.holder.enter(), one)} for one, other in ends
        ],
    }


def _shaped(enter: list[str], port: Port) -> dict[str, Any]:
    """The rate of a shaper and what has passed it, as the kernel tells them (tc has no JSON for htb)."""
    command = [*enter, "tc", "-s", "-n", port.namespace, "class", "show", "dev", port.device]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    found = SHAPER.search(told)
    if not found:
        return {"rate": "unknown", "sent_bytes": 0, "dropped_packets": 0}
    return {"rate": found["rate"], "sent_bytes": int(found["sent"]), "dropped_packets": int(found["dropped"])}
