"""A dragonfly: groups of routers, all joined inside a group, and groups all joined to one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..units import BytesPerSecond, SecondsOrZero
from .fabric import Array, Fabric, Index, Leg, LinkKind, in_order, require_room


class Dragonfly(Fabric):
    """``groups`` groups of ``routers`` routers with ``hosts`` nodes each (Kim, Dally, Scott and Abts, ISCA 2008).

    Each router has a link to each other one of its group, and ``global_links`` to other groups. Every pair of groups
    gets the same number of global cables, as many as there are ports for; ports that are left over stay empty. Port p
    of group g (router p // global_links) leads to group g + 1 + p mod (groups - 1), counted round; between two groups
    that have several cables, the target's number picks one.

    ``minimal`` routes go local, global, local: to the router with the cable, over it, to the target's router.
    ``valiant`` routes between groups first go minimally to a third group, which a hash of the pair picks, then
    minimally on: twice the global traffic, but spread evenly whatever the pattern.

    Links are numbered ``local`` first, by group, router left, and how many routers further round it leads less one;
    then ``global``, by group left and port.
    """

    kind: Literal["dragonfly"] = "dragonfly"
    routing: Literal["minimal", "valiant"] = "minimal"
    groups: int = Field(ge=2)
    routers: int = Field(ge=2)
    hosts: int = Field(ge=1)
    global_links: int = Field(ge=1)
    local_bandwidth: BytesPerSecond
    global_bandwidth: BytesPerSecond
    latency_router: SecondsOrZero
    latency_local: SecondsOrZero
    latency_global: SecondsOrZero

    @model_validator(mode="after")
    def _groups_reach_each_other(self) -> Dragonfly:
        if not self.parallel:
            ports = self.routers * self.global_links
            raise ValueError(
                f"groups is {self.groups}: the {ports} global links of a group reach {ports} others, so at most {ports + 1}"
            )
        return self

    @property
    def supernode(self) -> int:
        """Nodes of a group."""
        return self.routers * self.hosts

    @property
    def parallel(self) -> int:
        """Global cables between each pair of groups."""
        return self.routers * self.global_links // (self.groups - 1)

    def check(self, nodes: int) -> None:
        """Raise ``ValueError`` for more nodes than the routers have ports."""
        shape = f"a dragonfly of {self.groups} groups x {self.routers} routers x {self.hosts} hosts"
        require_room(nodes, self.groups * self.supernode, shape)

    def kinds(self, nodes: int, injection: float, efficiency: float = 1.0) -> list[LinkKind]:
        """Local and global links of all groups, used or not."""
        return [
            LinkKind("local", efficiency * self.local_bandwidth, self._locals, "local"),
            LinkKind(
                "global", efficiency * self.global_bandwidth, self.groups * (self.groups - 1) * self.parallel, "global"
            ),
        ]

    @property
    def _locals(self) -> int:
        return self.groups * self.routers * (self.routers - 1)

    def routes(self, source: Index, target: Index, nodes: int) -> Index:
        """At most local, global, local; with ``valiant`` routing twice that, through the third group's two routers."""
        here, there = source // self.hosts, target // self.hosts
        if self.routing == "minimal":
            return in_order(self._towards(here, there // self.routers, there, target)[0], len(source))
        first, at = self._towards(here, self._middle(source, target), None, target)
        second, _ = self._towards(at, there // self.routers, there, target)
        return in_order([*first, *second], len(source))

    def legs(self, nodes: int) -> tuple[Leg, ...] | None:
        """Of minimal routes: to the router with the cable, over it, and to the target's router. Valiant ones hash the pair."""
        if self.routing != "minimal":
            return None
        node = np.arange(self.groups * self.supernode)
        router, group, cable = node // self.hosts, node // self.supernode, node % self.parallel

        def hop(number: int) -> Callable[[Index, Index], Index]:
            def links(source: Index, target: Index) -> Index:
                here, there = source // self.hosts, target // self.hosts
                return self._towards(here, there // self.routers, there, target)[0][number][:, None]

            return links

        to_group = group * self.parallel + cable
        return (
            Leg(router, to_group, hop(0)),
            Leg(group, to_group, hop(1)),
            Leg(router, router * self.parallel + cable, hop(2)),
        )

    def _towards(self, here: Index, group: Index, there: Index | None, target: Index) -> tuple[list[Index], Index]:
        """Hops from router ``here`` into ``group`` and, where a router is given, to ``there``; and where they end."""
        home, others = here // self.routers, self.groups - 1
        away = home != group
        cable = target % self.parallel * others
        port = cable + (group - home - 1) % self.groups
        gate = np.where(away, home * self.routers + port // self.global_links, here)
        hops = [self._local(here, gate), np.where(away, self._locals + home * others * self.parallel + port, -1)]
        arrived = cable + (home - group - 1) % self.groups
        at = np.where(away, group * self.routers + arrived // self.global_links, here)
        if there is None:
            return hops, at
        return [*hops, self._local(at, there)], there

    def _local(self, here: Index, there: Index) -> Index:
        """The link between two routers of a group, -1 where they are one."""
        onwards = (there - here) % self.routers - 1
        return np.where(here == there, -1, here * (self.routers - 1) + onwards)

    def _middle(self, source: Index, target: Index) -> Index:
        """The group that each pair goes to first: a third one, or its own where there is none or it stays in its group."""
        start, end = source // self.supernode, target // self.supernode
        if self.groups == 2:
            return start
        further = 1 + (_scattered(source * self.groups * self.supernode + target) % (self.groups - 2))
        third = (start + further) % self.groups
        # Counting round from the start, groups from the target's on move up by one, so that it is left out.
        third = np.where(further >= (end - start) % self.groups, (third + 1) % self.groups, third)
        return np.where(start == end, start, third)

    def latencies(self, source: Index, target: Index) -> Array:
        """``[n]`` seconds: of the way through one router, and of each local and global link."""
        routes = self.routes(source, target, self.groups * self.supernode)
        local = ((routes >= 0) & (routes < self._locals)).sum(axis=1)
        crossing = (routes >= self._locals).sum(axis=1)
        seconds = self.latency_router + local * self.latency_local + crossing * self.latency_global
        return np.where(source == target, self.latency_node, seconds)


def _scattered(pairs: Index) -> Index:
    """Numbers of pairs scattered over 0 to 2**62, the same each time (splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    mixed: NDArray[np.uint64] = (pairs.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(2)).astype(np.int64)
