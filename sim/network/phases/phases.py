"""Phases of communication on the links of a machine: by the levels of a tree, or route by route."""

from __future__ import annotations

from typing import Protocol

from ....hardware.fabrics.fabric import LinkKind
from ....hardware.machine import Machine
from ....workloads.mesh.placement import Layout
from ..links import Array, Groups, Index, LinkLoads, Links
from .flow_classes import Demand
from .flow_symmetry import Marks
from .phases_on_trees import ByLevel


class Phases(Protocol):
    """What messages that begin together ask of the links of a machine, under one layout and at one depth.

    ``groups[g, i]`` are ranks; the members of a group that share a node, or a domain of a tree, stand next to each other.
    """

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """All links, kind by kind."""

    def all_pairs(
        self, groups: Groups, sent: Array, share: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when member i of a group sends ``sent[g, i] * share[g, j]`` bytes to each other j.

        Links that are looked at ``apart`` are alike to no other.
        """

    def one_each(
        self, groups: Index, targets: Index, sent: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """The same when each member sends ``sent[g, i]`` bytes to rank ``targets[g, i]``, or nothing where that is -1."""

    def crowded(self, groups: Index) -> bool:
        """Whether groups share links that can be full, as far as one sees at a glance."""

    def ways(self, groups: Index) -> tuple[Index, Index] | None:
        """Links (numbered over all kinds) that messages within groups can pass and that can be full, each with its group.

        None where nobody can tell with little effort.
        """

    def farthest(self, groups: Index) -> Array:
        """Seconds of the longest latency between members of each group, ``[groups]``."""


def phases(machine: Machine, layout: Layout, depth: str) -> Phases:
    """Phases by levels where the fabric is a tree, which costs a few numbers a rank; else by routes, a few a message."""
    levels = machine.fabric.levels(int(layout.node.max()) + 1, machine.injection)
    if levels is not None:
        return ByLevel(Links.of(machine, layout, levels), depth)
    from ..topology import Graph
    from .phases_by_route import ByRoute

    return ByRoute(Graph.of(machine, layout), depth)
