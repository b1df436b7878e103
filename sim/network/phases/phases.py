"""Phases of communication on the links of a machine: by the levels of a tree, or route by route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from ....hardware.fabrics.fabric import LinkKind
from ....hardware.machine import Machine
from ....workloads.mesh.node_cards import card_shares, node_injection
from ....workloads.mesh.placement import Layout
from ....workloads.mesh.uplinks import uplink_shares
from ..links import Array, Groups, Index, LinkLoads, Links
from .flow_classes import Alone, Demand
from .flow_symmetry import Marks
from .phases_on_trees import ByLevel

MOST_BY_ROUTE = 512
"""Ranks up to which messages are looked at one by one where nodes of a tree send at unequal rates."""


class Phases(Protocol):
    """What messages that begin together ask of the links of a machine, under one layout and at one depth.

    ``groups[g, i]`` are ranks; the members of a group that share a node, or a domain of a tree, stand next to each other.
    """

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """All links, kind by kind."""

    @property
    def two_way(self) -> bool:
        """Whether links one way are as those the other way, and take messages back that they take there: seconds are the same."""

    def all_pairs(
        self, groups: Groups, sent: Array, share: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when member i of a group sends ``sent[g, i] * share[g, j]`` bytes to each other j.

        Links that are looked at ``apart`` are alike to no other.
        """

    def all_pairs_at_once(self, groups: Groups, sent: Array, share: Array, overhead: float) -> Alone:
        """Several such exchanges, ``[exchange, group, member]``, each with the network to itself, and an overhead a message."""

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


def with_faster(made: Phases, faster: Mapping[str, float]) -> Phases:
    """The same phases on links of which each level in ``faster`` has so many times its bandwidth."""
    from .phases_by_route import ByRoute

    kinds = tuple(kind.faster(faster.get(kind.level, 1.0)) for kind in made.kinds)
    if isinstance(made, ByLevel):
        return ByLevel(replace(made.links, kinds=kinds), made.depth)
    assert isinstance(made, ByRoute)
    graph = made.graph
    scale = [kinds[number].capacity / graph.kinds[number].capacity for number in graph.kind]
    return ByRoute(replace(graph, kinds=kinds, capacity=graph.capacity * scale), made.depth)


def taken_as_slow(made: Phases, layout: Layout) -> str:
    """What is said where cards of single nodes or uplinks are slow, and all are taken to be; empty where they are not."""
    if not isinstance(made, ByLevel):
        return ""
    slow = {"cards of all nodes": card_shares(layout)[layout.node], "uplinks of all supernodes": _of_uplinks(layout)}
    unequal = " and ".join(what for what, shares in slow.items() if np.ptp(shares) > 0)
    if not unequal:
        return ""
    return (
        f"{unequal} are taken to be as slow as the slowest that is named, since {layout.mesh.ranks:,} ranks are more"
        f" than {MOST_BY_ROUTE}: an upper bound of what it costs"
    )


def _of_uplinks(layout: Layout) -> Array:
    """The share that the uplinks of each supernode with ranks have."""
    return uplink_shares(layout)[np.bincount(layout.node // layout.supernode_size) > 0]


def phases(machine: Machine, layout: Layout, depth: str, least: bool = False) -> Phases:
    """Phases by levels where the fabric is a tree, which costs a few numbers a rank; else by routes, a few a message.

    Levels know one rate of all nodes. Where nodes hold unequally many ranks with cards of their own, few ranks are looked at by
    routes; of many, all nodes send as the fullest one does. The same holds for named slow cards and uplinks: of many ranks, all
    send as the slowest of them, which is an upper bound of what these cost; or as the fastest, where a ``least`` time is asked.
    """
    levels, sends = (
        machine.fabric.levels(layout.reach, machine.injection),
        node_injection(machine, layout),
    )
    used, uplinks = sends[layout.node], _of_uplinks(layout)
    if levels is not None and (layout.mesh.ranks > MOST_BY_ROUTE or (np.ptp(used) == 0 and np.ptp(uplinks) == 0)):
        shares = card_shares(layout)[layout.node]
        left, up = (float(each.max() if least else each.min()) for each in (shares, uplinks))
        nic, *above = levels
        nic = replace(nic, capacity=float((used / shares).max()) * left)
        if above:
            above[0] = replace(above[0], capacity=above[0].capacity * up)
        levels = [nic, *above]
        return ByLevel(Links.of(machine, layout, levels), depth)
    from ..topology import Graph
    from .phases_by_route import ByRoute

    return ByRoute(Graph.of(machine, layout), depth)
