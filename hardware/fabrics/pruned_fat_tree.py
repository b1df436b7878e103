"""A pruned fat tree: supernodes that are full inside and share a thinner trunk to the top."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ..units import Ratio, SecondsOrZero
from .fabric import INTERFACES, Array, Index, Level
from .tree import Tree


class PrunedFatTree(Tree):
    """A two-level fat tree: supernodes whose trunk carries ``taper`` of what their nodes inject.

    With a taper of 3/16, 256 nodes share 48 uplinks: 48 flows leave a supernode at full rate, 96 at half, 256 at 3/16.
    ``adaptive`` routing makes the trunk one resource; ``static`` routing picks a cable by the destination's number
    (D-mod-K: Zahavi 2012), so that 256 destinations on 48 cables load some with six flows and others with five: an
    all-to-all runs 12.5 % slower.
    """

    kind: Literal["pruned-fat-tree"] = "pruned-fat-tree"
    routing: Literal["adaptive", "static"] = "adaptive"
    supernode: int = Field(gt=0)
    taper: Ratio
    latency_supernode: SecondsOrZero
    latency_top: SecondsOrZero

    @property
    def uplinks(self) -> int:
        """Cables of node rate between a supernode and the top, at least one."""
        return max(1, round(self.supernode * self.taper))

    @property
    def uplinks_by_level(self) -> dict[str, int]:
        """Those of a supernode."""
        return {"trunk": self.uplinks}

    @property
    def cables(self) -> int:
        """The uplinks where routes are static; else the trunk is one."""
        return self.uplinks if self.routing == "static" else 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """A node, a supernode."""
        return (1, self.supernode)

    def resized(self, supernode: int, nodes: int) -> dict[str, int]:
        """Another size of the supernodes alone; their trunks stay ``taper`` of what they inject."""
        return {"fabric.supernode": supernode}

    def check(self, nodes: int) -> None:
        """Any number of nodes will do: the top has a port for every uplink."""

    def levels(self, nodes: int, injection: float) -> list[Level]:
        """The levels of links over ``nodes`` nodes that inject ``injection`` bytes per second each, from the bottom up."""
        node = np.arange(nodes)
        trunk = self.taper * self.supernode * injection
        return [
            Level(INTERFACES, node, injection, 1, np.zeros_like(node)),
            Level("trunk", node // self.supernode, trunk / self.cables, self.cables, node % self.cables),
        ]

    def latency(self, crossed: Index | int) -> Array:
        """One-way latency of a message by how many levels of links it crosses: 0 stays in the node, 2 passes the top."""
        return np.array([self.latency_node, self.latency_supernode, self.latency_top])[crossed]
