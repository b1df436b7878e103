"""Which rank of the job takes which place in the mesh, so that the placement of the plan is that of the hosts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...workloads.mesh.placement import Layout


def arrange(layout: Layout, host: Sequence[int]) -> tuple[list[int], str]:
    """The mesh rank of each rank of the job, and a note where hosts do not match the layout's nodes.

    ``host[rank]`` numbers the host of each rank of the job. The first node of the layout that holds ranks becomes the first
    host, and so on. Where hosts and nodes differ in number or in ranks on them, ranks are taken as they come.
    """
    nodes, on_node = np.unique(layout.node, return_inverse=True)
    hosts = np.asarray(host)
    if len(nodes) == len(set(host)) and (np.bincount(on_node) == np.bincount(hosts)).all():
        place = np.empty(len(hosts), dtype=np.int64)
        place[np.argsort(hosts, kind="stable")] = np.argsort(on_node, kind="stable")
        return place.tolist(), ""
    on_hosts = ", ".join(str(int(count)) for count in np.bincount(hosts)[:8])
    note = (
        f"the placement is not that of the hosts: the plan has ranks on {len(nodes)} nodes of the machine, and the job has"
        f" {len(set(host))} hosts with {on_hosts} ranks"
    )
    return list(range(len(host))), note
