"""All links that ranks can reach, and the way of a message from one rank to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..hardware.fabrics.fabric import LinkKind
from ..hardware.machine import Machine
from ..workloads.placement import Layout
from .links import Array, Index


@dataclass(frozen=True)
class Graph:
    """Links of a machine under a layout, numbered over all kinds: rings in nodes, interfaces out and in, then the fabric's.

    ``kind[link]`` counts in ``kinds``; ``capacity[link]`` is in bytes per second.
    """

    machine: Machine
    layout: Layout
    nodes: int
    kinds: tuple[LinkKind, ...]
    kind: Index
    capacity: Array

    @classmethod
    def of(cls, machine: Machine, layout: Layout) -> Graph:
        """The links between the first node and the last one that holds a rank."""
        nodes = int(layout.node.max()) + 1
        kinds = [LinkKind("ring", machine.node.ring_bandwidth, nodes)]
        kinds += [LinkKind(name, machine.injection, nodes) for name in ("nic.out", "nic.in")]
        kinds += machine.fabric_links(nodes)
        counts = [kind.count for kind in kinds]
        capacity = np.repeat([kind.capacity for kind in kinds], counts)
        return cls(machine, layout, nodes, tuple(kinds), np.repeat(np.arange(len(kinds)), counts), capacity)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the kinds."""
        return tuple(kind.name for kind in self.kinds)

    def routes(self, source: Index, target: Index) -> Index:
        """Links from ranks to ranks, ``[n, hops]``, in order; -1 where a route is shorter."""
        start, end = self.layout.node[source], self.layout.node[target]
        inside = start == end
        first, last = np.where(inside, start, self.nodes + start), np.where(inside, -1, 2 * self.nodes + end)
        between = np.full((len(start), 0), -1, dtype=np.int64)
        if not inside.all():
            across = np.flatnonzero(~inside)
            found = self.machine.fabric.routes(start[across], end[across], self.nodes)
            between = np.full((len(start), found.shape[1]), -1, dtype=np.int64)
            between[across] = np.where(found >= 0, found + 3 * self.nodes, -1)
        return np.column_stack([first, between, last])

    def latencies(self, source: Index, target: Index) -> Array:
        """Seconds of an empty message between ranks."""
        return self.machine.fabric.latencies(self.layout.node[source], self.layout.node[target])

    def relabelled(self, permutation: Index) -> Index | None:
        """Where a relabelling of ranks takes every link; None where it takes some link apart or the fabric is no tree.

        On a tree the way is decided by the domains and the cable of both ends. So it is enough that ranks of one domain, or
        with one cable, stay together at every level, and that no two domains or cables become one.
        """
        levels, node = self.machine.fabric.levels(self.nodes, self.machine.injection), self.layout.node
        if levels is None:
            return None
        links = np.arange(len(self.kind))
        moved = _together(node, node[permutation], self.nodes)
        if moved is None:
            return None
        for ring_or_interface in range(3):
            links[ring_or_interface * self.nodes :][: self.nodes] = ring_or_interface * self.nodes + moved
        start = 3 * self.nodes
        for level in levels[1:]:
            domains = _together(level.domain[node], level.domain[node[permutation]], level.domains)
            cables = _together(level.slot[node], level.slot[node[permutation]], level.cables)
            if domains is None or cables is None:
                return None
            numbers = (domains[:, None] * level.cables + cables).reshape(-1)
            for _ in ("out", "in"):
                links[start : start + len(numbers)] = start + numbers
                start += len(numbers)
        return links


def _together(before: Index, after: Index, count: int) -> Index | None:
    """The permutation of numbers that takes every ``before`` to its ``after``; None where one is taken to two.

    No two are taken to one: all that are there are reached, since ranks are only exchanged, and they are finitely many.
    """
    to = np.arange(count)
    to[before] = after
    return to if (to[before] == after).all() else None
