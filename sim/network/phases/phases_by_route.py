"""Phases on any fabric: every message by itself, on the route that the fabric gives it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ....hardware.fabrics.fabric import LinkKind
from ....workloads.lowering.simulator_memory import MOST_PAIRS, PAIRS_AT_ONCE, require_pairs
from ..links import Array, Groups, Index, LinkLoads
from ..marginal_flows import MarginalFlows
from ..routes import Flows, all_pairs
from ..topology import Graph
from .flow_classes import Alone, Demand, busy_link_demand, by_latency
from .flow_symmetry import Marks
from .route_symmetry import route_demand


@dataclass(frozen=True)
class ByRoute:
    """The :class:`~athanor.sim.network.phases.phases.Phases` of a fabric that is no tree.

    Routes of all pairs of a group are kept, since layers repeat.
    """

    graph: Graph
    depth: str
    _pairs: dict[Groups, Flows] = field(default_factory=dict, repr=False, compare=False)
    _legs: dict[Groups, MarginalFlows | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """All links, kind by kind."""
        return self.graph.kinds

    @property
    def two_way(self) -> bool:
        """Routes there and back may differ."""
        return False

    def all_pairs(
        self, groups: Groups, sent: Array, share: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when all send to all of their group; raises ``DoesNotFit`` where pairs are too many."""
        count, size = groups.members.shape
        if self.depth == "links" and (marginals := self._by_legs(groups)) is not None:
            total, ends = marginals.loads_and_ends(sent, share)
            loads = self._by_kind(total)
            return busy_link_demand(loads, ends[None, :], self.farthest(groups.members)[None, :], apart), loads
        require_pairs(count * size * (size - 1), self._way_out())
        if groups not in self._pairs:
            self._pairs[groups] = Flows.of_all_pairs(self.graph, groups.members)
        nbytes = sent[:, :, None] * share[:, None, :]
        others = ~np.eye(size, dtype=bool)
        return self._phase(self._pairs[groups], nbytes[:, others].reshape(-1), count, apart, crowd=True)

    def _by_legs(self, groups: Groups) -> MarginalFlows | None:
        """What groups send by the legs of routes, worked out once; None where routes have none."""
        if groups not in self._legs:
            self._legs[groups] = MarginalFlows.of(self.graph, groups.members)
        return self._legs[groups]

    def _by_kind(self, total: Array) -> LinkLoads:
        """Bytes of all links, kind by kind."""
        ends = np.cumsum([kind.count for kind in self.kinds])
        return LinkLoads(
            self.kinds, dict(zip((kind.name for kind in self.kinds), np.split(total, ends[:-1]), strict=True))
        )

    def _way_out(self) -> str:
        """What takes any number of pairs."""
        machine, nodes = self.graph.machine, self.graph.nodes
        if machine.fabric.legs(nodes) is not None:
            return "--depth links adds them up by the parts of their routes"
        for routing in machine.fabric.routings():
            if machine.with_routing(routing).fabric.legs(nodes) is not None:
                return f"--routing {routing} with --depth links adds them up by the parts of their routes"
        return "fewer ranks in all or along ep (--mesh) have fewer"

    def all_pairs_at_once(self, groups: Groups, sent: Array, share: Array, overhead: float) -> Alone:
        """Several such exchanges, ``[exchange, group, member]``, each with the network to itself: one after another."""
        ends, loads, apart = np.zeros(sent.shape[:2]), LinkLoads(self.kinds), np.zeros(len(sent), dtype=np.bool_)
        found = [self.all_pairs(groups, *each) for each in zip(sent, share, strict=True)]
        longest: Array | float = 0.0
        for number, (demand, _) in enumerate(found):
            ends[number] = demand.group_seconds(demand.alone[0], 1, overhead)
            apart[number], longest = demand.apart, demand.ends.longest
        for kind in self.kinds:
            if any(kind.name in each.loads for _, each in found):
                loads.put(kind.name, np.array([each.loads.get(kind.name, np.zeros(kind.count)) for _, each in found]))
        return Alone(ends, longest, loads, apart)

    def one_each(
        self, groups: Index, targets: Index, sent: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """Flow classes and link loads when each sends to at most one of its group."""
        target = targets.reshape(-1)
        member = np.flatnonzero(target >= 0)
        group, source = member // groups.shape[1], groups.reshape(-1)[member]
        flows = Flows.between(self.graph, group, source, target[member])
        return self._phase(flows, sent.reshape(-1)[member], len(groups), apart)

    def farthest(self, groups: Index) -> Array:
        """Latency of the longest message when all send to all, whichever pair of a group is the farthest.

        Of very many pairs, those of every so many senders are looked at.
        """
        count, size = groups.shape
        every = -(-count * size * (size - 1) // MOST_PAIRS)
        longest = np.zeros(count)
        for group, source, target in all_pairs(groups, every):
            np.maximum.at(longest, group, self.graph.latencies(source, target))
        return longest

    def crowded(self, groups: Index) -> bool:
        """Whether several groups leave their nodes."""
        node = self.graph.layout.node[groups]
        return int((node != node[:, :1]).any(axis=1).sum()) > 1

    def ways(self, groups: Index) -> tuple[Index, Index] | None:
        """The links of all routes within groups, and their groups; None where these are very many."""
        count, size = groups.shape
        if count * size * (size - 1) > PAIRS_AT_ONCE:
            return None
        flows = Flows.of_all_pairs(self.graph, groups)
        links = [part.links for part in flows.parts]
        owners = [np.repeat(part.own(flows.group), part.lengths) for part in flows.parts]
        empty = np.zeros(0, dtype=np.int64)
        return np.concatenate([empty, *links]), np.concatenate([empty, *owners])

    def _phase(
        self, flows: Flows, nbytes: Array, groups: int, apart: Marks | None = None, crowd: bool = False
    ) -> tuple[Demand, LinkLoads]:
        """What messages with these bytes, in so many groups, ask of the network; in a ``crowd`` each rank has many."""
        total = flows.loads(nbytes)
        loads = self._by_kind(total)
        if self.depth == "links":
            ends = flows.ends(nbytes, total / self.graph.capacity)
            if not crowd:
                return busy_link_demand(loads, *by_latency(flows.latency, ends, flows.group, groups), apart), loads
            last, farthest = np.zeros((1, groups)), np.zeros((1, groups))
            for latest, each in ((last, ends), (farthest, flows.latency)):
                np.maximum.at(latest[0], flows.group, each)
            return busy_link_demand(loads, last, farthest, apart), loads
        return route_demand(flows, nbytes, groups, apart), loads
