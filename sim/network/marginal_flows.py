"""All-to-alls by their marginals: bytes that are what a rank sends times what another receives, added up by parts of routes.

Where all routes consist of legs (:class:`~athanor.hardware.fabrics.fabric.Leg`), messages of a group that pass a leg alike are
those between two sets of nodes, and their bytes are the product of what these send and receive. A group of n ranks then has as
many flows as its sets make, not n squared. Nothing is left out: sums are those of single messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...hardware.fabrics.fabric import Leg
from ...workloads.lowering.simulator_memory import PAIRS_AT_ONCE, require_pairs
from .links import Array, Index
from .routes import Flows, RoutePart
from .topology import Graph

ROUNDING = 1e-12
"""Share of a sum below which what is left of it after a subtraction is rounding."""


@dataclass(frozen=True)
class LegFlows:
    """The messages on a leg: between sets of senders and receivers, numbered over all groups.

    ``source[rank]`` is the set of senders of each member ``groups[g, i]``, flattened, ``target`` that of receivers; ``begin`` and
    ``end`` are those of each flow.
    """

    source: Index
    target: Index
    begin: Index
    end: Index
    flows: Flows

    @classmethod
    def of(cls, graph: Graph, groups: Index, leg: Leg) -> LegFlows:
        """All that is sent on a leg; raises ``DoesNotFit`` where even these are too many."""
        node = graph.layout.node[groups]
        source, begins, senders = _sets(leg.source[node], node)
        target, ends, receivers = _sets(leg.target[node], node)
        counts = np.array([begins, ends])  # [begin or end, group]
        starts = np.cumsum(counts, axis=1) - counts
        require_pairs(int((counts[0] * counts[1]).sum()))
        offset, at = graph.inside.count + 2 * graph.nodes, 0
        kept: list[tuple[Index, Index, Index]] = []
        parts: list[RoutePart] = []
        for first, last in _runs(counts[0] * counts[1]):
            group, begin, end = _products(starts[:, first:last], counts[:, first:last])
            links = leg.links(senders[begin], receivers[end])
            used = links >= 0
            some = np.flatnonzero(used.any(axis=1))
            lengths = used[some].sum(axis=1)
            numbers = (links[used] + offset).astype(np.int32)
            parts.append(RoutePart(at, numbers, np.cumsum(lengths) - lengths, lengths.astype(np.int16)))
            kept.append((group[some] + first, begin[some], end[some]))
            at += len(some)
        group, begin, end = (np.concatenate([each[column] for each in kept]) for column in range(3))
        return cls(source, target, begin, end, Flows(graph, group, tuple(parts)))

    def nbytes(self, sent: Array, share: Array) -> Array:
        """Bytes of each flow."""
        senders = np.bincount(self.source, sent.reshape(-1))
        receivers = np.bincount(self.target, share.reshape(-1))
        found: Array = np.multiply(senders[self.begin], receivers[self.end], dtype=np.float64)
        return found


@dataclass(frozen=True)
class MarginalFlows:
    """What members of groups send to all others of their group, by legs; inside nodes and on interfaces rank by rank."""

    graph: Graph
    groups: Index
    legs: tuple[LegFlows, ...]
    home: Index  # [groups, size]: the node of each member, numbered over all groups

    @classmethod
    def of(cls, graph: Graph, groups: Index) -> MarginalFlows | None:
        """None where routes have no legs, so that each pair of ranks has to be looked at."""
        legs = graph.machine.fabric.legs(graph.nodes)
        if legs is None:
            return None
        node = graph.layout.node[groups]
        home, _, _ = _sets(node, node)
        return cls(graph, groups, tuple(LegFlows.of(graph, groups, leg) for leg in legs), home.reshape(groups.shape))

    def loads_and_ends(self, sent: Array, share: Array) -> tuple[Array, Array]:
        """Bytes on every link, and the seconds after which every link that a group uses is done."""
        graph = self.graph
        own = self._own(sent, share)
        loads = np.zeros(len(graph.kind))
        for links, nbytes in own:
            loads += np.bincount(links.reshape(-1), nbytes.reshape(-1), len(loads))
        carried = [leg.nbytes(sent, share) for leg in self.legs]
        for leg, nbytes in zip(self.legs, carried, strict=True):
            loads += leg.flows.loads(nbytes)
        seconds, ends = loads / graph.capacity, np.zeros(len(self.groups))
        for links, nbytes in own:
            np.maximum(ends, np.where(nbytes > 0, seconds[links], 0.0).max(axis=1), out=ends)
        for leg, nbytes in zip(self.legs, carried, strict=True):
            np.maximum(ends, leg.flows.worst(nbytes, seconds, len(ends)), out=ends)
        return loads, ends

    def _own(self, sent: Array, share: Array) -> list[tuple[Index, Array]]:
        """Links of each member's node and what it sends or receives over them, ``[groups, size]``."""
        graph, inside = self.graph, self.graph.inside
        node = graph.layout.node[self.groups]
        count, home = int(self.home.max()) + 1, self.home.reshape(-1)
        found = []
        for first, mine, others, ways in ((0, sent, share, 0), (graph.nodes, share, sent, 1)):
            here = np.bincount(home, others.reshape(-1), count)[self.home]
            whole = others.sum(axis=1, keepdims=True)
            away = np.where(whole - here > ROUNDING * whole, whole - here, 0.0)
            near = np.where(here - others > ROUNDING * here, here - others, 0.0)
            found.append((inside.count + first + node, mine * away))
            if ways < len(inside.kinds):
                start = inside.kinds[0].count * ways
                found.append((start + inside.link[self.groups], mine * near))
        return found


def _sets(labels: Index, node: Index) -> tuple[Index, Index, Index]:
    """Sets of equal ``labels[g, i]``, numbered group by group: that of each member, how many a group has, a node of each."""
    count = len(labels)
    width = int(labels.max()) + 1
    keys = (np.arange(count)[:, None] * width + labels).reshape(-1)
    known, first, number = np.unique(keys, return_index=True, return_inverse=True)
    return number.reshape(-1), np.bincount(known // width, minlength=count), node.reshape(-1)[first]


def _runs(products: Index) -> list[tuple[int, int]]:
    """Ranges of groups that have few enough flows to be looked at together."""
    number = np.cumsum(products) // PAIRS_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1), len(products)]
    return [(int(first), int(last)) for first, last in pairwise(cuts) if last > first]


def _products(starts: Index, counts: Index) -> tuple[Index, Index, Index]:
    """(group, begin, end) of all pairs of a set of senders and one of receivers of the same group."""
    every = counts[0] * counts[1]
    group = np.repeat(np.arange(len(every)), every)
    inside = np.arange(every.sum()) - np.repeat(np.cumsum(every) - every, every)
    begin, end = np.divmod(inside, counts[1][group])
    return group, starts[0][group] + begin, starts[1][group] + end
