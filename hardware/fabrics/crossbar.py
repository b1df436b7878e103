"""A crossbar: one switch that joins all nodes at full rate."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..units import SecondsOrZero
from .fabric import UNBOUNDED, Array, Index, Level
from .tree import Tree


class Crossbar(Tree):
    """One switch (a star) that never is the bottleneck: only the interfaces of the nodes are.

    A message between nodes passes two links, each with ``latency_link``. It is the fabric to compare others with, and
    a fair picture of a cluster behind a single switch.
    """

    kind: Literal["crossbar"] = "crossbar"
    routing: Literal["direct"] = "direct"
    latency_link: SecondsOrZero

    @property
    def supernode(self) -> int:
        """All nodes: the switch has as many ports as there are."""
        return UNBOUNDED

    @property
    def sizes(self) -> tuple[int, ...]:
        """A node is the only domain that links lead out of."""
        return (1,)

    def check(self, nodes: int) -> None:
        """Any number of nodes will do."""

    def levels(self, nodes: int, injection: float) -> list[Level]:
        """The interfaces alone."""
        node = np.arange(nodes)
        return [Level("nic", node, injection, 1, np.zeros_like(node))]

    def latency(self, crossed: Index | int) -> Array:
        """One-way latency of a message by how many levels of links it crosses: 0 stays in the node, 1 passes the switch."""
        return np.array([self.latency_node, 2 * self.latency_link])[crossed]
