"""Phases on a tree: what crosses a domain is known without looking at single messages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....hardware.fabrics.fabric import LinkKind
from ..links import Array, Groups, Index, LinkLoads, Links, Messages, all_pairs_loads, alone_in, step_loads
from .flow_classes import Alone, Demand, busy_link_demand, by_latency
from .flow_symmetry import Marks, all_pairs_alone, all_pairs_demand, step_demand


@dataclass(frozen=True)
class ByLevel:
    """The :class:`~athanor.sim.network.phases.phases.Phases` of a tree."""

    links: Links
    depth: str

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """All links, kind by kind."""
        return self.links.kinds

    @property
    def two_way(self) -> bool:
        """Where links are looked at one by one, and no destination picks a cable."""
        return self.depth == "links" and max(self.links.cables, default=1) == 1

    def all_pairs(
        self, groups: Groups, sent: Array, share: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when all send to all of their group."""
        loads = all_pairs_loads(self.links, groups, sent, share)
        if self.depth == "links":
            ends, free = _group_ends(self.links, groups, loads)
            return busy_link_demand(loads, ends[None, :], self.farthest(groups)[None, :], apart, bool(free)), loads
        return all_pairs_demand(self.links, groups, sent, share, apart), loads

    def all_pairs_at_once(self, groups: Groups, sent: Array, share: Array, overhead: float) -> Alone:
        """Several exchanges in which all send to all, ``[exchange, group, member]``, each with the network to itself."""
        loads = all_pairs_loads(self.links, groups, sent, share)
        longest = self.farthest(groups)
        if self.depth == "links":
            ends, free = _group_ends(self.links, groups, loads)
            return Alone(ends + (longest + overhead), longest, loads, free)
        ends = all_pairs_alone(self.links, groups, sent, share, overhead)
        return Alone(ends, longest, loads, np.zeros(len(sent), dtype=np.bool_))

    def farthest(self, groups: Groups) -> Array:
        """Latency of each group's longest message when all send to all: members stand in order, so the last is the farthest."""
        known = self.links.farthest
        if groups not in known:
            node = self.links.layout.node[groups.members]
            last = np.broadcast_to(node[:, -1:], node.shape)
            each_way = self.links.machine.fabric.latencies(node.reshape(-1), last.reshape(-1))
            known[groups] = each_way.reshape(node.shape).max(axis=1)
        return known[groups]

    def one_each(
        self, groups: Index, targets: Index, sent: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when each sends to at most one of its group."""
        messages = Messages.of(self.links, groups, targets)
        loads = step_loads(self.links, messages, sent)
        if self.depth == "links":
            source = groups.reshape(-1)[messages.member], targets.reshape(-1)[messages.member]
            latency = self.links.machine.fabric.latencies(*(self.links.layout.node[end] for end in source))
            ends = by_latency(latency, _message_ends(messages, sent, loads), messages.group, len(groups))
            return busy_link_demand(loads, *ends, apart), loads
        return step_demand(self.links, groups, targets, sent, apart), loads

    def crowded(self, groups: Index) -> bool:
        """Whether several groups leave one domain, or lie in a node with a ring, or together fill a link."""
        links, below = self.links, None
        if len(links.inside.kinds) == 1 and not alone_in(groups, links.inside.link):
            return True
        for name, domain, cables, _ in links.by_level():
            kind = next(each for each in links.kinds if each.name == f"{name}.out")
            leaves = domain[groups[:, 0]] != domain[groups[:, -1]]
            full = leaves.any() and not _never_full(domain, kind.capacity, cables, below)
            if full and not alone_in(groups[leaves], domain):
                return True
            below = domain, kind.capacity * cables
        return False

    def ways(self, groups: Index) -> tuple[Index, Index] | None:
        """Links inside the nodes that hold several members, and those of every domain that a group leaves and can fill."""
        links, size, start = self.links, groups.shape[1], 0
        group = np.repeat(np.arange(len(groups)), size)
        node = links.domains[0][groups]
        beside = np.zeros(groups.shape, dtype=bool)
        beside[:, 1:] |= node[:, 1:] == node[:, :-1]
        beside[:, :-1] |= node[:, 1:] == node[:, :-1]
        near, found = beside.reshape(-1), []
        for kind in links.inside.kinds:
            found.append((start + links.inside.link[groups].reshape(-1)[near], group[near]))
            start += kind.count
        below: tuple[Index, float] | None = None
        for name, domain, cables, _ in links.by_level():
            kind = next(each for each in links.kinds if each.name == f"{name}.out")
            home = domain[groups]
            leaves = np.repeat(home[:, 0] != home[:, -1], size)
            for _ in ("out", "in"):
                if not _never_full(domain, kind.capacity, cables, below):
                    at = home.reshape(-1)[leaves]
                    found += [(start + at * cables + cable, group[leaves]) for cable in range(cables)]
                start += kind.count
            below = domain, kind.capacity * cables
        return np.concatenate([link for link, _ in found]), np.concatenate([each for _, each in found])


def _never_full(domain: Index, capacity: float, cables: int, below: tuple[Index, float] | None) -> bool:
    """Whether a domain's only link carries all that the links of the domains within it can bring."""
    if below is None or cables > 1:
        return False
    inner, each = below
    outer = np.full(int(inner.max()) + 1, -1)
    outer[inner] = domain
    return bool(np.bincount(outer[outer >= 0]).max() * each <= capacity * (1 + 1e-9))


def _message_ends(messages: Messages, sent: Array, loads: LinkLoads) -> Array:
    """Seconds after which every link that each message passes has carried its bytes."""
    sends = sent.reshape(-1)[messages.member] > 0
    ends = np.zeros(len(sends))
    for kind, seconds in loads.busy():
        of_link = np.append(seconds, 0.0)  # the last place is of messages that pass none
        np.maximum(ends, of_link[messages.passed[kind.name]], out=ends)
    ends[~sends] = 0.0
    return ends


ROOM = 2.0
"""A link that groups share holds none back if it needs this many times less for all their bytes than each for its own links:
then it carries two exchanges at once, of which some groups are at the first and others at the second."""


def _group_ends(links: Links, among: Groups, loads: LinkLoads) -> tuple[Array, NDArray[np.bool_]]:
    """Seconds after which every link that a group uses has carried its bytes, ``[…, groups]``.

    And whether links that groups share are so little loaded that they hold none of them back, whenever each begins. Loads of
    several exchanges stand along a first axis.
    """
    groups = among.members
    before = next(iter(loads.loads.values())).shape[:-1] if loads.loads else ()
    own, shared, crowded = np.zeros((*before, len(groups))), np.zeros((*before, len(groups))), np.zeros(before)
    levels = {f"{name}.{way}": number for number, name in enumerate(links.names) for way in ("out", "in")}
    for kind, seconds in loads.busy():
        level = levels.get(kind.name)
        if level is None:
            domain, worst = links.inside.link, seconds
            there = seconds[..., domain[groups]].max(axis=-1)
        else:
            domain, homes, cables = links.domains[level], links.homes(among, level), links.cables[level]
            worst = seconds if cables == 1 else seconds.reshape(*before, -1, cables).max(axis=-1)
            there = homes.most(worst[..., homes.of_run])
        if links.single(among, domain):
            own = np.maximum(own, there)
        else:
            shared, crowded = np.maximum(shared, there), np.maximum(crowded, worst.max(axis=-1))
    return np.maximum(own, shared), np.asarray(crowded * ROOM <= own.min(axis=-1))
