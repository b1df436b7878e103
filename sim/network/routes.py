"""Messages one by one, each with the links that it passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...workloads.lowering.simulator_memory import PAIRS_AT_ONCE
from .links import Array, Index
from .topology import Graph

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class RoutePart:
    """Some consecutive messages: message ``first + m`` passes the ``lengths[m]`` links from ``links[starts[m]]`` on.

    An empty one takes ``latencies[kind[m]]`` seconds.
    """

    first: int
    links: NDArray[np.int32]
    starts: Index
    lengths: NDArray[np.int16]
    kind: NDArray[np.int16]
    latencies: Array

    @classmethod
    def of(cls, graph: Graph, first: int, source: Index, target: Index) -> RoutePart:
        """Messages between ranks."""
        routes = graph.routes(source, target)
        there = routes >= 0
        lengths = there.sum(axis=1)
        starts = np.cumsum(lengths) - lengths
        latencies, kind = np.unique(graph.latencies(source, target), return_inverse=True)
        short = lengths.astype(np.int16), kind.astype(np.int16)
        return cls(first, routes[there].astype(np.int32), starts, *short, latencies)

    def __len__(self) -> int:
        return len(self.lengths)

    def own(self, values: NDArray[Number]) -> NDArray[Number]:
        """What of ``values[message]`` belongs to the messages of this part."""
        return values[self.first : self.first + len(self)]


@dataclass(frozen=True)
class Flows:
    """Messages that begin together: the group of each, and its way."""

    graph: Graph
    group: Index
    parts: tuple[RoutePart, ...]

    @classmethod
    def between(cls, graph: Graph, group: Index, source: Index, target: Index) -> Flows:
        """One message from each source to each target, ranks all of them."""
        parts = [
            RoutePart.of(graph, at, source[at : at + PAIRS_AT_ONCE], target[at : at + PAIRS_AT_ONCE])
            for at in range(0, len(source), PAIRS_AT_ONCE)
        ]
        return cls(graph, group, tuple(parts))

    @classmethod
    def of_all_pairs(cls, graph: Graph, groups: Index) -> Flows:
        """A message from each member of ``groups[g, i]`` to each other one of its group, in the order of groups and senders."""
        count, size = groups.shape
        first, parts = 0, []
        for _, source, target in all_pairs(groups):
            parts.append(RoutePart.of(graph, first, source, target))
            first += len(source)
        return cls(graph, np.repeat(np.arange(count), size * (size - 1)), tuple(parts))

    def loads(self, nbytes: Array) -> Array:
        """Bytes on every link, given those of each message."""
        loads = np.zeros(len(self.graph.kind))
        for part in self.parts:
            loads += np.bincount(part.links, np.repeat(part.own(nbytes), part.lengths), len(loads))
        return loads

    def ends(self, nbytes: Array, seconds: Array) -> Array:
        """Seconds after which every link that each message passes is done; ``seconds[link]`` is how long each is busy."""
        worst = [np.maximum.reduceat(seconds[part.links], part.starts) for part in self.parts]
        return np.where(nbytes > 0, np.concatenate([*worst, np.zeros(0)]), 0.0)

    @property
    def latency(self) -> Array:
        """Seconds of each message without bytes."""
        return np.concatenate([*(part.latencies[part.kind] for part in self.parts), np.zeros(0)])


def all_pairs(groups: Index) -> Iterator[tuple[Index, Index, Index]]:
    """(number of the group, sender, receiver) of all pairs within ``groups[g, i]``, some at a time, in order."""
    count, size = groups.shape
    others = size - 1
    for first in range(0, count * size * others, PAIRS_AT_ONCE):
        sender, other = np.divmod(np.arange(first, min(first + PAIRS_AT_ONCE, count * size * others)), others)
        group, position = np.divmod(sender, size)
        yield group, groups[group, position], groups[group, other + (other >= position)]
