"""A pruned fat tree: supernodes that are full inside and share a thinner trunk to the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from .records import Record
from .units import Ratio, SecondsOrZero

Routing = Literal["adaptive", "static"]


@dataclass(frozen=True)
class LinkKind:
    """All links of one kind: their capacity in bytes per second, and how many there are."""

    name: str
    capacity: float
    count: int


@dataclass(frozen=True)
class Level:
    """One level of links in a tree: every domain (a node, a supernode) has links up, out of it, and links down, into it.

    Traffic uses a domain's links exactly when its other end lies outside the domain. ``capacity`` is that of one link
    in one direction. With several ``cables`` (static routing) a message takes the one that its destination's slot
    selects.
    """

    name: str
    domain: NDArray[np.int64]  # [nodes]: the domain that each node lies in
    capacity: float
    cables: int
    slot: NDArray[np.int64]  # [nodes]: slot % cables, the cable that leads to each node

    @property
    def domains(self) -> int:
        """How many domains the level has."""
        return int(self.domain[-1]) + 1


class PrunedFatTree(Record):
    """A two-level fat tree: supernodes whose trunk carries ``taper`` of what their nodes inject.

    With a taper of 3/16, 256 nodes share 48 uplinks: 48 flows leave a supernode at full rate, 96 at half, 256 at 3/16.
    ``adaptive`` routing makes the trunk one resource; ``static`` routing picks a cable by the destination's slot
    (D-mod-K), so that 256 destinations on 48 cables load some with six flows and others with five: an all-to-all runs
    12.5 % slower.
    """

    supernode: int = Field(gt=0)
    taper: Ratio
    routing: Routing = "adaptive"
    latency_node: SecondsOrZero
    latency_supernode: SecondsOrZero
    latency_top: SecondsOrZero

    @property
    def uplinks(self) -> int:
        """Cables of node rate between a supernode and the top, at least one."""
        return max(1, round(self.supernode * self.taper))

    def supernodes(self, nodes: int) -> int:
        """Supernodes that ``nodes`` nodes fill, the last one perhaps in part."""
        return -(-nodes // self.supernode)

    def levels(self, nodes: int, injection: float) -> list[Level]:
        """The levels of links over ``nodes`` nodes that inject ``injection`` bytes per second each, from the bottom up."""
        node = np.arange(nodes)
        group = node // self.supernode
        trunk = self.taper * self.supernode * injection
        cables = self.uplinks if self.routing == "static" else 1
        slot = node % cables
        return [
            Level("nic", node, injection, 1, np.zeros_like(node)),
            Level("trunk", group, trunk / cables, cables, slot),
        ]

    def latency(self, crossed: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """One-way latency of a message by how many levels of links it crosses: 0 stays in the node, 2 passes the top."""
        return np.array([self.latency_node, self.latency_supernode, self.latency_top])[crossed]

    def kinds(self, nodes: int, injection: float) -> list[LinkKind]:
        """Trunks out of and into supernodes, a link for each cable."""
        _, trunk = self.levels(nodes, injection)
        count = trunk.domains * trunk.cables
        return [LinkKind("trunk.out", trunk.capacity, count), LinkKind("trunk.in", trunk.capacity, count)]

    def routes(self, source: NDArray[np.int64], target: NDArray[np.int64], nodes: int) -> NDArray[np.int64]:
        """Out of the one supernode and into the other, over the cable of the destination's slot; nothing inside a supernode."""
        cables = self.uplinks if self.routing == "static" else 1
        lane = target % cables
        start, end = source // self.supernode, target // self.supernode
        trunks = np.stack([start * cables + lane, (self.supernodes(nodes) + end) * cables + lane], axis=1)
        return np.where((start == end)[:, None], -1, trunks)

    def latencies(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.float64]:
        """One-way latency between nodes."""
        crossed = (source != target).astype(np.int64) + (source // self.supernode != target // self.supernode)
        return self.latency(crossed)
