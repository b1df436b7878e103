"""What was sent over which link: the bytes between ranks, on the routes of the machine that the plan names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...hardware.fabrics.fabric import LinkKind
from ...hardware.machine import Machine
from ...workloads.mesh.node_cards import interfaces
from ...workloads.mesh.node_links import NodeLinks
from ...workloads.mesh.placement import Layout
from ...workloads.results.totals import LinkUse


def links(machine: Machine, layout: Layout, sent: NDArray[np.float64], seconds: float, steps: int) -> list[LinkUse]:
    """Use of each kind of link, as simulated Runs tell it.

    ``sent[source, target]`` are bytes in all steps, which took ``seconds`` together. Bytes are measured; links, routes and
    capacities are the machine file's.
    """
    nodes, inside = layout.reach, NodeLinks.of(machine, layout)
    between = np.zeros((nodes, nodes))
    np.add.at(between, (layout.node[:, None], layout.node[None, :]), sent)
    source, target = np.nonzero(between)
    apart = source != target
    kinds = [*inside.kinds, *interfaces(machine, layout)]
    near = np.where(layout.node[:, None] == layout.node[None, :], sent, 0.0)
    loads: list[NDArray[np.float64]] = [
        np.bincount(inside.link, near.sum(axis=end), kind.count).astype(np.float64, copy=False)
        for kind, end in zip(inside.kinds, (1, 0), strict=False)
    ]
    np.fill_diagonal(between, 0.0)
    loads += [between.sum(axis=1), between.sum(axis=0)]
    fabric = machine.fabric_links(nodes)
    if fabric and apart.any():
        pairs = source[apart], target[apart]
        routes = machine.fabric.routes(*pairs, nodes)
        weight = np.broadcast_to(between[pairs][:, None], routes.shape)
        flat = np.zeros(sum(kind.count for kind in fabric))
        np.add.at(flat, routes[routes >= 0], weight[routes >= 0])
        ends = np.cumsum([kind.count for kind in fabric])[:-1]
        kinds, loads = [*kinds, *fabric], [*loads, *np.split(flat, ends)]
    return [_row(kind, load, seconds, steps) for kind, load in zip(kinds, loads, strict=True) if load.any()]


def _row(kind: LinkKind, load: NDArray[np.float64], seconds: float, steps: int) -> LinkUse:
    busy = load / kind.each
    used = load > 0
    return LinkUse(
        kind=kind.name,
        links=int(used.sum()),
        capacity_bytes_per_second=float(np.broadcast_to(kind.each, kind.count)[busy.argmax()]),
        bytes_per_step=float(load.sum()) / steps,
        mean_utilisation=float(busy[used].mean()) / seconds,
        max_utilisation=float(busy.max()) / seconds,
        busiest=int(busy.argmax()),
    )
