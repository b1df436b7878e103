"""All links that ranks can reach, and the way of a message from one rank to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...hardware.fabrics.fabric import LinkKind
from ...hardware.machine import Machine
from ...workloads.mesh.node_cards import interfaces
from ...workloads.mesh.node_links import NodeLinks
from ...workloads.mesh.placement import Layout
from ...workloads.mesh.uplinks import fabric_links
from .links import Array, Index


@dataclass(frozen=True)
class Graph:
    """Links of a machine under a layout, numbered over all kinds: those inside nodes, interfaces out and in, then the fabric's.

    ``kind[link]`` counts in ``kinds``; ``capacity[link]`` is in bytes per second.
    """

    machine: Machine
    layout: Layout
    inside: NodeLinks
    nodes: int
    kinds: tuple[LinkKind, ...]
    kind: Index
    capacity: Array

    @classmethod
    def of(cls, machine: Machine, layout: Layout) -> Graph:
        """The links between the first node and the last one that holds a rank."""
        nodes = layout.reach
        inside = NodeLinks.of(machine, layout)
        kinds = [*inside.kinds, *interfaces(machine, layout), *fabric_links(machine, layout)]
        counts = [kind.count for kind in kinds]
        capacity = np.concatenate([np.broadcast_to(kind.each, kind.count) for kind in kinds])
        return cls(machine, layout, inside, nodes, tuple(kinds), np.repeat(np.arange(len(kinds)), counts), capacity)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the kinds."""
        return tuple(kind.name for kind in self.kinds)

    def routes(self, source: Index, target: Index) -> Index:
        """Links from ranks to ranks, ``[n, hops]``, in order; -1 where a route is shorter. ``hops`` is the same for all ranks."""
        start, end, inside = self.layout.node[source], self.layout.node[target], self.inside
        near = start == end
        into = inside.kinds[0].count + inside.link[target] if len(inside.kinds) > 1 else -1
        first = np.where(near, inside.link[source], inside.count + start)
        last = np.where(near, into, inside.count + self.nodes + end)
        across = np.flatnonzero(~near)  # perhaps none: tables of messages have as many columns nevertheless
        found = self.machine.fabric.routes(start[across], end[across], self.nodes)
        between = np.full((len(start), found.shape[1]), -1, dtype=np.int64)
        between[across] = np.where(found >= 0, found + inside.count + 2 * self.nodes, -1)
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
        links, own = np.arange(len(self.kind)), self.inside.link
        moved = _together(node, node[permutation], self.nodes)
        within = _together(own, own[permutation], self.inside.kinds[0].count)
        if moved is None or within is None:
            return None
        start = 0
        for numbers in (*[within] * len(self.inside.kinds), moved, moved):
            links[start : start + len(numbers)] = start + numbers
            start += len(numbers)
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
