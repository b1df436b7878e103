"""Trees: fabrics whose links lie between a domain of nodes and all that is outside it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from .fabric import Array, Fabric, Index, Level, LinkKind, in_order


class Tree(Fabric):
    """A fabric of nested domains: a message climbs to the smallest one that holds both its ends, and down again.

    A variant says how large its domains are, which links lead out of them, and what a message costs by how far it
    climbs. Links are numbered level by level from the bottom: all that lead out, then all that lead in, the cables of
    a domain next to each other.
    """

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Nodes in a domain of each level, from the single node up."""

    @abstractmethod
    def levels(self, nodes: int, injection: float) -> list[Level]:
        """The levels of links over ``nodes`` nodes that inject ``injection`` bytes per second each, from the bottom up."""

    @abstractmethod
    def latency(self, crossed: Index | int) -> Array:
        """One-way latency of a message by how many levels of links it crosses: 0 stays in the node."""

    def kinds(self, nodes: int, injection: float, efficiency: float = 1.0) -> list[LinkKind]:
        """Links out of and into the domains of each level; their rates follow from ``injection`` alone."""
        return [
            LinkKind(f"{level.name}.{way}", level.capacity, level.domains * level.cables, level.name)
            for level in self.levels(nodes, injection)[1:]
            for way in ("out", "in")
        ]

    def routes(self, source: Index, target: Index, nodes: int) -> Index:
        """Up out of every domain that does not hold the target, and down into those that do; its slot picks the cables."""
        up: list[Index] = []
        down: list[Index] = []
        start = 0
        for level in self.levels(nodes, 1.0)[1:]:
            count, lane = level.domains * level.cables, level.slot[target]
            across = level.domain[source] != level.domain[target]
            up.append(np.where(across, start + level.domain[source] * level.cables + lane, -1))
            down.append(np.where(across, start + count + level.domain[target] * level.cables + lane, -1))
            start += 2 * count
        return in_order([*up, *reversed(down)], len(source))

    def latencies(self, source: Index, target: Index) -> Array:
        """``[n]`` seconds, by the levels that a message crosses."""
        crossed: Index = np.zeros(len(source), dtype=np.int64)
        for size in self.sizes:
            crossed += source != target if size == 1 else source // size != target // size
        return self.latency(crossed)
