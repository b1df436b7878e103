"""What the kernel reports about a cluster: the rates of its shapers, and the bytes that each has passed on."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from .cluster import Cluster
from .tree import links

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


def report(cluster: Cluster) -> dict[str, Any]:
    """A cluster as plain data: shape, holder, nodes, and its links with ``rate`` (bytes/s) and ``bytes`` of each direction.

    The rates and bytes are those that the kernel tells, not those that were asked for.
    """
    shape, holder = cluster.shape, cluster.state.holder
    found: dict[str, Any] = {
        "name": cluster.state.name,
        "kind": "namespaces" if holder else "loopback",
        "holder": holder.pid if holder else None,
        "supernodes": shape.supernodes,
        "nodes_per_supernode": shape.nodes,
    }
    if not holder:
        return found
    rates, sent = _shapers(cluster)
    return found | {
        "node_rate": shape.node_rate,
        "taper": shape.taper,
        "uplink_rate": shape.uplink_rate,
        "transport": shape.transport.model_dump(),
        "nodes": [{"name": n.name, "address": n.address, "supernode": n.supernode} for n in cluster.nodes],
        "links": [
            {
                "low": low.namespace,
                "high": high.namespace,
                "rate_up": rates[low.namespace, low.device],
                "rate_down": rates[high.namespace, high.device],
                "bytes_up": sent[low.namespace, low.device],
                "bytes_down": sent[high.namespace, high.device],
            }
            for low, high in links(shape)
        ],
    }


def _shapers(cluster: Cluster) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], int]]:
    """Bytes per second and bytes sent of the shaper at each end of a link, by namespace and device."""
    assert cluster.state.holder
    ends = [end for link in links(cluster.shape) for end in link]
    script = "\n".join(
        f"echo '# {end.namespace} {end.device}'; tc -n {end.namespace} -s class show dev {end.device}" for end in ends
    )
    told = subprocess.run([*cluster.state.holder.enter(), "sh"], input=script, capture_output=True, text=True).stdout
    rates: dict[tuple[str, str], float] = {}
    sent: dict[tuple[str, str], int] = {}
    for section in told.split("# ")[1:]:
        namespace, device = section.split(maxsplit=2)[:2]
        if (rate := re.search(r"rate ([0-9.]+)([KMG]?)bit", section)) and (
            count := re.search(r"Sent (\d+) bytes", section)
        ):
            rates[namespace, device] = float(rate[1]) * _UNITS[rate[2]] / 8
            sent[namespace, device] = int(count[1])
    return rates, sent
