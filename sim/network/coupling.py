"""Which groups of ranks share links that can be full, so that it matters when each of them begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .links import Index
from .phases.flow_symmetry import Marks
from .phases.transfers import Traffic

Owners = NDArray[np.int64]

NOBODY, SEVERAL = -1, -2

MOST_PAIRS = 10_000_000
"""Pairs of groups above which a table of them is not worth its memory."""


MOST_KEPT = 16
"""Ways to put groups together of which the shared links are kept."""


class Kind(NamedTuple):
    """Exchanges of one stream along the same axes."""

    stream: str
    axes: tuple[str, ...]


class Coupling:
    """The links that groups of each kind of exchange can fill, and which of these they share.

    Groups share a link if both use it and may be under way at once. Two that have a rank in common are not, in one stream: that
    rank is done with the first before it begins the second. Groups of a batch begin together, but need not end so.
    """

    def __init__(self, traffic: Traffic, kinds: Iterable[Kind]) -> None:
        self.layout, self.kinds = traffic.layout, list(kinds)
        self.links = sum(kind.count for kind in traffic.phases.kinds)
        found = {axes: traffic.phases.ways(self.layout.groups(axes)) for axes in {kind.axes for kind in self.kinds}}
        self.known = all(ways is not None for ways in found.values())
        self.ways = {axes: ways for axes, ways in found.items() if ways is not None}
        self._of_rank: dict[tuple[str, ...], Index] = {}
        self._shared: dict[tuple[bytes, ...], Marks] = {}

    @classmethod
    def of(cls, traffic: Traffic, kinds: Iterable[Kind]) -> Coupling:
        """Worked out once for kinds that come again, as in the blocks of a pipeline."""
        key = tuple(kinds)
        if key not in traffic.couplings:
            traffic.couplings[key] = cls(traffic, key)
        found: Coupling = traffic.couplings[key]
        return found

    def groups(self, kind: Kind) -> int:
        """How many groups a kind has."""
        return len(self.layout.groups(kind.axes))

    def of_rank(self, kind: Kind) -> Index:
        """The group of each rank."""
        if kind.axes in self._of_rank:
            return self._of_rank[kind.axes]
        groups = self.layout.groups(kind.axes)
        found = np.empty(groups.size, dtype=np.int64)
        found[groups] = np.arange(len(groups))[:, None]
        self._of_rank[kind.axes] = found
        return found

    def shared(self, batches: Mapping[Kind, Index]) -> Marks:
        """The links that groups of several batches share; ``batches[kind][group]`` is the number of the batch of each group."""
        key = tuple(batches[kind].tobytes() for kind in self.kinds)
        if key not in self._shared:
            while len(self._shared) >= MOST_KEPT:
                del self._shared[next(iter(self._shared))]
            marks = self._shared[key] = self._shared_links(batches)
            marks.setflags(write=False)
        return self._shared[key]

    def _shared_links(self, batches: Mapping[Kind, Index]) -> Marks:
        found: Marks = np.zeros(self.links, dtype=bool)
        for kind in self.kinds:
            found |= self._owners(kind, batches[kind]) == SEVERAL
        owners = {kind: self._owners(kind, np.arange(self.groups(kind))) for kind in self.kinds}
        for number, first in enumerate(self.kinds):
            for second in self.kinds[number + 1 :]:
                both = np.flatnonzero((owners[first] != NOBODY) & (owners[second] != NOBODY))
                if first.stream == second.stream and len(both):
                    mine, other = owners[first][both], owners[second][both]
                    single = (mine >= 0) & (other >= 0)
                    single[single] = _together(self.of_rank(first), self.of_rank(second), mine[single], other[single])
                    both = both[~single]
                found[both] = True
        return found

    def coupled(self) -> set[Kind]:
        """The kinds of which a group shares a link with another, of its own kind or not."""
        shared = self.shared({kind: np.arange(self.groups(kind)) for kind in self.kinds})
        return {kind for kind in self.kinds if shared[self.ways[kind.axes][0]].any()}

    def _owners(self, kind: Kind, batch: Index) -> Owners:
        """The batch that uses each link, ``NOBODY`` or ``SEVERAL``."""
        link, group = self.ways[kind.axes]
        owner = np.full(self.links, NOBODY, dtype=np.int64)
        owner[link] = batch[group]
        owner[link[owner[link] != batch[group]]] = SEVERAL
        return owner


def _together(first: Index, second: Index, a: Index, b: Index) -> Marks:
    """Whether some rank is in groups ``a[i]`` and ``b[i]``; ``first[rank]`` and ``second[rank]`` are the groups of each."""
    width = int(second.max()) + 1
    size = (int(first.max()) + 1) * width
    if size > MOST_PAIRS:
        found: Marks = np.isin(a * width + b, first * width + second)
        return found
    there = np.zeros(size, dtype=bool)
    there[first * width + second] = True
    known: Marks = there[a * width + b]
    return known
