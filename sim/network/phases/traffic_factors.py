"""What the bytes of a collective weigh on links: less where switches add up, more where links do not serve it fully."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....hardware.machine import Machine
from ....workloads.mesh.placement import Layout
from ..links import Array, Index


@dataclass(frozen=True, eq=False)
class TrafficFactors:
    """Factors of the bytes of messages on links: ``near[rank]`` of what a rank sends within its node, ``far`` of the rest."""

    near: Array
    far: float

    def of(self, source: Index, target: Index, node: Index) -> Array:
        """The factor of each message from rank to rank; ``node[rank]`` is where a rank lives. Targets of -1 have any."""
        weighed: Array = np.where(node[source] == node[target], self.near[source], self.far)
        return weighed

    def of_all(self, source: Index, targets: Index, node: Index) -> Array:
        """The factor of what ranks send to all of ``targets[source, i]``: that inside a node only where no other one is met."""
        near = (node[targets] == node[source][:, None]).all(axis=1)
        weighed: Array = np.where(near, self.near[source], self.far)
        return weighed


def traffic_factors(
    machine: Machine, layout: Layout, groups: Index, operation: str, algorithm: str
) -> TrafficFactors | None:
    """The traffic factors of a collective of ``groups[g, i]``; None where bytes weigh what they are.

    *Links between pairs* (``node.inside = "links"``): k of the n ranks of a node have k - 1 of the n - 1 links of each, so that
    their bytes weigh (n - 1) / (k - 1); libraries spread a collective over all links among its members.

    *Reduction in switches*: a ring all-reduce of n ranks sends 2 (n - 1) / n of a vector over each port. Where the switch adds
    up, a port carries (1 + 1 / k) of it either way, for k members in the node: all is fetched once for the sums, of which
    each rank keeps and sends on its 1 / k, and all sums come back. That runs at ``node.inside_reduction``, and libraries
    then join nodes by a tree: between two of them a vector goes each way once, between more as much as in a ring. Where the
    switches between nodes add up, one vector leaves a node and comes back, however many there are. Libraries take whichever is
    faster, so that nothing weighs more for it.

    *All-to-alls*, in which every rank sends straight to every other, reach a share of what rings do.

    Source: Klenk et al. 2020, An in-network architecture for accelerating shared-memory multiprocessor collectives (ISCA);
    Graham et al. 2016, SHARP; trees between two nodes: the authors of NCCL in issue 196 of nccl-tests.
    """
    node = machine.node
    reduces = (operation, algorithm) == ("all-reduce", "ring") and bool(node.inside_reduction or node.network_reduction)
    crowds = (operation, algorithm) == ("all-to-all", "linear") and bool(
        node.inside_all_to_all or node.network_all_to_all
    )
    if node.inside != "links" and not reduces and not crowds:
        return None
    members = _members(groups, layout.node, layout.mesh.ranks)
    near, far, size = np.ones(layout.mesh.ranks), 1.0, groups.shape[1]
    if node.inside == "links":
        near *= max(1, layout.ranks_per_node - 1) / np.maximum(members - 1, 1)
    if reduces and size > 1:
        whole = 2 * (size - 1) / size
        if node.inside_reduction:
            near = np.minimum(near, (1 + 1 / members) / whole * node.ring_bandwidth / node.inside_reduction)
        if node.network_reduction or (node.inside_reduction and _nodes(groups, layout.node) == 2):
            far = min(1.0, 1 / whole)
    if crowds:
        near, far = near / (node.inside_all_to_all or 1.0), far / (node.network_all_to_all or 1.0)
    return TrafficFactors(near, far)


def _nodes(groups: Index, node: Index) -> int:
    """How many nodes the most spread group has members in."""
    home = np.sort(node[groups], axis=1)
    return 1 + int((home[:, 1:] != home[:, :-1]).sum(axis=1).max(initial=0))


def _members(groups: Index, node: Index, ranks: int) -> Array:
    """How many of its group are in the node of each rank, ``[ranks]``."""
    group = np.broadcast_to(np.arange(len(groups))[:, None], groups.shape)
    _, which, count = np.unique(group * (int(node.max()) + 1) + node[groups], return_inverse=True, return_counts=True)
    found = np.ones(ranks)
    found[groups] = count[which.reshape(groups.shape)]
    return found
