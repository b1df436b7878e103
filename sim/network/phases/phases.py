"""Phases of communication on the links of a machine: by the levels of a tree, or route by route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from ....hardware.fabrics.fabric import LinkKind
from ....hardware.machine import Machine
from ....workloads.mesh.placement import Layout
from ..links import Array, Groups, Index, LinkLoads, Links
from .flow_classes import Demand
from .phases_on_trees import ByLevel


class Phases(Protocol):
    """What messages that begin together ask of the links of a machine, under one layout and at one depth.

    ``groups[g, i]`` are ranks; the members of a group that share a node, or a domain of a tree, stand next to each other.
    """

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """All links, kind by kind."""

    def all_pairs(self, groups: Groups, sent: Array, share: Array) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when member i of a group sends ``sent[g, i] * share[g, j]`` bytes to each other j."""

    def one_each(self, groups: Index, targets: Index, sent: Array) -> tuple[Demand, LinkLoads]:
        """The same when each member sends ``sent[g, i]`` bytes to rank ``targets[g, i]``, or nothing where that is -1."""

    def farthest(self, groups: Index) -> Array:
        """Seconds of the longest latency between members of each group, ``[groups]``."""


def with_faster(made: Phases, faster: Mapping[str, float]) -> Phases:
    """The same phases on links of which each level in ``faster`` has so many times its bandwidth."""
    from .phases_by_route import ByRoute

    kinds = tuple(replace(kind, capacity=kind.capacity * faster.get(kind.level, 1.0)) for kind in made.kinds)
    if isinstance(made, ByLevel):
        return ByLevel(replace(made.links, kinds=kinds), made.depth)
    assert isinstance(made, ByRoute)
    graph = made.graph
    scale = [kinds[number].capacity / graph.kinds[number].capacity for number in graph.kind]
    return ByRoute(replace(graph, kinds=kinds, capacity=graph.capacity * scale), made.depth)


def phases(machine: Machine, layout: Layout, depth: str) -> Phases:
    """Phases by levels where the fabric is a tree, which costs a few numbers a rank; else by routes, a few a message."""
    levels = machine.fabric.levels(int(layout.node.max()) + 1, machine.injection)
    if levels is not None:
        return ByLevel(Links.of(machine, layout, levels), depth)
    from ..topology import Graph
    from .phases_by_route import ByRoute

    return ByRoute(Graph.of(machine, layout), depth)
