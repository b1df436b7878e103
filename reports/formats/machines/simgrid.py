"""The fabric of a machine as a platform of SimGrid (XML 4.1): a host for each node, each link, and the way of each message.

A message's latency depends on its ends, not on single links: each way has one link of no width that waits so long, and all
others wait for nothing. Rates are those that reach an application. What joins core groups inside a node is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import InputError
from ....hardware.machine import Machine, load_machine
from ..kinds import Contents, Exporter, Wanted

MOST = 512
"""Nodes of a platform: it has a way for each pair of them."""

ENDLESS = 1e18
"""Bytes a second of a link that never holds anybody back."""


def simgrid_platform(machine: Machine, nodes: int | None = None) -> str:
    """The XML of the first ``nodes`` nodes; raises :class:`InputError` where these are too many."""
    count = min(machine.nodes, nodes or machine.nodes)
    if count > MOST:
        raise InputError(
            f"{machine.name}: a platform of {count:,} nodes has {count * count:,} ways: too many; --ranks {MOST} or fewer"
        )
    fabric = machine.fabric
    source, target = (each.ravel() for each in np.indices((count, count)))
    apart = source != target
    source, target = source[apart].astype(np.int64), target[apart].astype(np.int64)
    routes, waits = fabric.routes(source, target, count), fabric.latencies(source, target)
    names = _names(machine, count, np.unique(routes[routes >= 0]))
    lines = [
        "<?xml version='1.0'?>",
        '<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">',
        '<platform version="4.1">',
        f'  <zone id={quoteattr(machine.name)} routing="Full">',
    ]
    speed = max(machine.core_group.peak.values()) * machine.node.core_groups
    lines += [
        f'    <host id="node-{number}" speed="{speed!r}f" core="{machine.node.core_groups}"/>'
        for number in range(count)
    ]
    links = [(f"nic.{way}.{number}", machine.injection, 0.0) for number in range(count) for way in ("out", "in")]
    links += [(name, rate, 0.0) for name, rate in names.values()]
    lines += [_link(name, rate, wait, "SHARED") for name, rate, wait in links]
    distinct = {float(wait): f"latency.{number}" for number, wait in enumerate(np.unique(waits))}
    lines += [_link(name, ENDLESS, wait, "FATPIPE") for wait, name in distinct.items()]
    for start, end, way, wait in zip(source.tolist(), target.tolist(), routes.tolist(), waits.tolist(), strict=True):
        through = [f"nic.out.{start}", *(names[link][0] for link in way if link >= 0), f"nic.in.{end}", distinct[wait]]
        inside = "".join(f'<link_ctn id="{name}"/>' for name in through)
        lines.append(f'    <route src="node-{start}" dst="node-{end}" symmetrical="NO">{inside}</route>')
    return "\n".join([*lines, "  </zone>", "</platform>", ""])


def _names(machine: Machine, nodes: int, used: NDArray[np.int64]) -> dict[int, tuple[str, float]]:
    """(name, bytes a second) of the fabric's links that are on any way, by their numbers."""
    found: dict[int, tuple[str, float]] = {}
    first = 0
    for kind in machine.fabric_links(nodes):
        rates = np.broadcast_to(kind.each, kind.count)
        for number in used[(used >= first) & (used < first + kind.count)].tolist():
            found[number] = (f"{kind.name}.{number - first}", float(rates[number - first]))
        first += kind.count
    return found


class SimGridPlatform(Exporter):
    """platform of SimGrid in XML, of a machine's nodes, links and ways."""

    takes: ClassVar[str] = "a machine: a TOML file"

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """One file; ``ranks`` are nodes."""
        return {wanted.out: simgrid_platform(load_machine(str(source)), wanted.ranks)}


def _link(name: str, rate: float, wait: float, sharing: str) -> str:
    return f'    <link id="{name}" bandwidth="{rate!r}Bps" latency="{wait!r}s" sharing_policy="{sharing}"/>'
