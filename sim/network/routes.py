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

    An empty one takes ``latencies[kind[m]]`` seconds, where they are whole messages.
    """

    first: int
    links: NDArray[np.int32]
    starts: Index
    lengths: NDArray[np.int16]
    kind: NDArray[np.int16] | None = None
    latencies: Array | None = None

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
        worst = [np.maximum.reduceat(seconds[part.links], part.starts) for part in self.parts if len(part)]
        return np.where(nbytes > 0, np.concatenate([*worst, np.zeros(0)]), 0.0)

    @property
    def latency(self) -> Array:
        """Seconds of each message without bytes."""
        known = [
            part.latencies[part.kind] for part in self.parts if part.latencies is not None and part.kind is not None
        ]
        return np.concatenate([*known, np.zeros(0)])

    def worst(self, nbytes: Array, seconds: Array, groups: int) -> Array:
        """The longest of ``seconds[link]`` of the links that carry something for each group; 0 where there is none."""
        ends = np.zeros(groups)
        for part in self.parts:
            if not len(part):
                continue
            longest = np.maximum.reduceat(seconds[part.links], part.starts)
            np.maximum.at(ends, part.own(self.group), np.where(part.own(nbytes) > 0, longest, 0.0))
        return ends


def all_pairs(groups: Index, every: int = 1) -> Iterator[tuple[Index, Index, Index]]:
    """(number of the group, sender, receiver) of all pairs within ``groups[g, i]``, some at a time, in order.

    With ``every`` above 1 of every so many senders of a group one, the first among them.
    """
    count, size = groups.shape
    others, senders = size - 1, -(-size // every)
    for first in range(0, count * senders * others, PAIRS_AT_ONCE):
        sender, other = np.divmod(np.arange(first, min(first + PAIRS_AT_ONCE, count * senders * others)), others)
        group, position = np.divmod(sender, senders)
        position = position * every
        yield group, groups[group, position], groups[group, other + (other >= position)]
