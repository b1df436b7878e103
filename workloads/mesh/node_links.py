"""What joins the ranks of a node: one ring that they share, or ports of their own to a switch or to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.fabrics.fabric import LinkKind
from ...hardware.machine import Machine
from .placement import Layout


@dataclass(frozen=True)
class NodeLinks:
    """Links between ranks of one node, over all nodes of a layout.

    A message passes one link of each of the ``kinds``: of the first that of its sender, of the second, where there is one, that
    of its receiver. ``link[rank]`` is the number of a rank's link in each kind.
    """

    kinds: tuple[LinkKind, ...]
    link: NDArray[np.int64]

    @classmethod
    def of(cls, machine: Machine, layout: Layout) -> NodeLinks:
        """A ``ring`` for each node up to the last one that holds a rank, or a ``port.out`` and a ``port.in`` for each rank."""
        node, ranks = machine.node, layout.mesh.ranks
        if node.inside == "ring":
            return cls((LinkKind("ring", node.ring_bandwidth, layout.reach, "ring"),), layout.node)
        port = node.ring_bandwidth * node.core_groups / layout.ranks_per_node
        return cls(
            (LinkKind("port.out", port, ranks, "port"), LinkKind("port.in", port, ranks, "port")), np.arange(ranks)
        )

    @property
    def count(self) -> int:
        """Links of all kinds."""
        return sum(kind.count for kind in self.kinds)
