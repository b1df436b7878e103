"""Phases on a tree: what crosses a domain is known without looking at single messages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....hardware.fabrics.fabric import LinkKind
from ..links import Array, Groups, Index, LinkLoads, Links, Messages, all_pairs_loads, step_loads
from .flow_classes import Demand, bound_demand
from .flow_symmetry import all_pairs_demand, step_demand


@dataclass(frozen=True)
class ByLevel:
    """The :class:`~athanor.sim.network.phases.phases.Phases` of a tree."""

    links: Links
    depth: str

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """All links, kind by kind."""
        return self.links.kinds

    def all_pairs(self, groups: Groups, sent: Array, share: Array) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when all send to all of their group."""
        loads = all_pairs_loads(self.links, groups, sent, share)
        if self.depth == "bound":
            return bound_demand(loads, _group_ends(self.links, groups.members, loads)), loads
        return all_pairs_demand(self.links, groups, sent, share), loads

    def one_each(self, groups: Index, targets: Index, sent: Array) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when each sends to at most one of its group."""
        messages = Messages.of(self.links, groups, targets)
        loads = step_loads(self.links, messages, sent)
        if self.depth == "bound":
            return bound_demand(loads, _step_ends(messages, len(groups), sent, loads)), loads
        return step_demand(self.links, groups, targets, sent), loads

    def farthest(self, groups: Index) -> Array:
        """Latency of the longest message when all send to all: members stand in order, so that the last one is the farthest."""
        node = self.links.layout.node[groups]
        last = np.broadcast_to(node[:, -1:], node.shape)
        each_way = self.links.machine.fabric.latencies(node.reshape(-1), last.reshape(-1))
        longest: Array = each_way.reshape(groups.shape).max(axis=1)
        return longest


def _step_ends(messages: Messages, groups: int, sent: Array, loads: LinkLoads) -> Array | None:
    """Seconds after which every link that a group's messages pass has carried its bytes; None where groups do not differ."""
    sends = sent.reshape(-1)[messages.member] > 0
    ends = np.zeros(groups)
    for kind, seconds in loads.busy():
        link = messages.passed[kind.name]
        used = sends & (link >= 0)
        np.maximum.at(ends, messages.group[used], seconds[link[used]])
    return None if (ends == ends[0]).all() else ends


def _group_ends(links: Links, groups: Index, loads: LinkLoads) -> Array | None:
    """Seconds after which every link that a group uses has carried its bytes; None where groups do not differ."""
    uses = {kind.name: (links.inside.link, 1, np.ones(len(groups), dtype=bool)) for kind in links.inside.kinds}
    for name, domain, cables, _ in links.by_level():
        leaves = domain[groups[:, 0]] != domain[groups[:, -1]]  # members of a domain stand next to each other
        uses |= {f"{name}.out": (domain, cables, leaves), f"{name}.in": (domain, cables, leaves)}
    ends = np.zeros(len(groups))
    for kind, seconds in loads.busy():
        domain, cables, used = uses[kind.name]
        worst = seconds.reshape(-1, cables).max(axis=1)
        ends = np.maximum(ends, np.where(used, worst[domain[groups]].max(axis=1), 0.0))
    return None if (ends == ends[0]).all() else ends
