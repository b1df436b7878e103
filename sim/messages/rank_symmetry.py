"""Which ranks and links of a collective are alike: orbits of relabellings that leave machine, placement and rounds as they are.

A relabelling is only proposed by the structure of the rounds (those of a ring may be turned, those of a pairwise XOR
mirrored) and counts when it maps every domain of the machine onto a domain, every cable onto a cable, and ranks onto ranks with
the same bytes. One rank and one link then stand for all of their orbit: they do the same at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...workloads.collectives import Round
from ..network.distinct import distinct
from ..network.links import Array, Index
from ..network.topology import Graph


@dataclass(frozen=True)
class RankSymmetry:
    """Orbits of ranks and of links.

    ``rank[r]`` and ``link[l]`` are the orbit of each, ``first[o]`` the rank that stands for an orbit, ``ranks[o]`` and
    ``links[o]`` how many are in it, ``example[o]`` a link of each.
    """

    rank: Index
    first: Index
    ranks: Index
    link: Index
    links: Index
    example: Index

    @classmethod
    def of(cls, graph: Graph, groups: Index, rounds: Iterable[Round], inner: int, alike: list[Array]) -> RankSymmetry:
        """Orbits for groups ``[g, position]`` that run ``rounds``; ``alike`` are amounts by rank that must not differ."""
        ranks, links = np.arange(graph.layout.mesh.ranks), np.arange(len(graph.kind))
        home = graph.layout.node[groups] // graph.layout.supernode_size
        for permutation in _proposed(groups, list(rounds), inner, home):
            if all((amounts[permutation] == amounts).all() for amounts in alike):
                moved = graph.relabelled(permutation)
                if moved is not None:
                    ranks, links = _joined(ranks, permutation), _joined(links, moved)
        first, rank, size = np.unique(ranks, return_inverse=True, return_counts=True)
        example, link, links_of = np.unique(links, return_inverse=True, return_counts=True)
        return cls(rank, first, size, link, links_of, example)

    @classmethod
    def alone(cls, graph: Graph) -> RankSymmetry:
        """Every rank and every link by itself."""
        ranks, links = np.arange(graph.layout.mesh.ranks), np.arange(len(graph.kind))
        return cls(ranks, ranks, np.ones_like(ranks), links, np.ones_like(links), links)


def _proposed(groups: Index, rounds: list[Round], inner: int, home: Index) -> Iterator[Index]:
    """Relabellings of ranks that the rounds commute with: of groups among each other, and of positions in all groups alike.

    ``home[group, position]`` is the supernode of each.
    """
    count, size = groups.shape
    yield from (_moved(groups, np.roll(groups, -by, axis=0)) for by in _steps(count, inner))
    kinds = {each.pattern.symmetry for each in rounds}
    position = np.arange(size)
    outer_at, inner_at = position // inner, position % inner
    if kinds == {"any"} and all(each.scope == "group" for each in rounds):
        if (home == home[0]).all() or len(groups) == 1:
            yield from (_moved(groups, groups[:, onto]) for onto in _shuffles(home[0]))
    elif any(each.scope != "group" for each in rounds):
        if kinds <= {"any", "rotation"}:
            yield _moved(groups, groups[:, outer_at * inner + (inner_at + 1) % inner])
            yield _moved(groups, np.roll(groups, -inner, axis=1))
    elif kinds <= {"any", "rotation"}:
        yield from (_moved(groups, np.roll(groups, -by, axis=1)) for by in _steps(size, inner))
    if kinds <= {"any", "xor"} and size & (size - 1) == 0 and all(each.scope == "group" for each in rounds):
        yield from (_moved(groups, groups[:, position ^ (1 << bit)]) for bit in range(size.bit_length() - 1))


def _shuffles(home: Index) -> Iterator[Index]:
    """Where any relabelling will do: each supernode's positions turned, and supernodes with equally many exchanged in turn."""
    order = np.argsort(home, kind="stable")
    starts = np.flatnonzero(np.diff(home[order], prepend=home[order[0]] - 1))
    lengths = np.diff(np.append(starts, len(home)))
    within = np.arange(len(home)) - np.repeat(starts, lengths)
    onto = np.empty_like(order)
    onto[order] = order[np.repeat(starts, lengths) + (within + 1) % np.repeat(lengths, lengths)]
    yield onto
    following = starts.copy()
    for length in distinct(lengths):
        alike = np.flatnonzero(lengths == length)
        following[alike] = starts[np.roll(alike, -1)]
    exchanged = np.empty_like(order)
    exchanged[order] = order[np.repeat(following, lengths) + within]
    yield exchanged


def _steps(size: int, inner: int) -> list[int]:
    """By how much to turn: by one, or by a supernode's part."""
    return [by for by in {1, inner} if size > 1 and by < size and size % by == 0]


def _moved(groups: Index, onto: Index) -> Index:
    """The permutation of ranks that takes each member of ``groups`` to that of ``onto``."""
    permutation = np.arange(groups.size)
    permutation[groups.reshape(-1)] = onto.reshape(-1)
    return permutation


def _joined(label: Index, permutation: Index) -> Index:
    """Labels that are the smallest of each cycle of the permutation: by doubling, so that a cycle of n takes log2 n rounds."""
    while True:
        lower: NDArray[np.int64] = np.minimum(label, label[permutation])
        if (lower == label).all():
            return label
        label, permutation = lower, permutation[permutation]
