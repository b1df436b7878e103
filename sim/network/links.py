"""Links of a tree under a layout: their numbers, capacities, and the traffic that collectives put on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.fabrics.fabric import Level, LinkKind
from ...hardware.machine import Machine
from ...workloads.mesh.node_links import NodeLinks
from ...workloads.mesh.placement import Layout

Array = NDArray[np.float64]
Index = NDArray[np.int64]

DUST = 1e-6
"""A link that is busy for less than this part of the busiest one's time is not one that is used."""


@dataclass(frozen=True)
class Links:
    """Numbers all links that the ranks of a layout can reach.

    ``names[level]`` are the levels of the fabric, from the node outwards, ``domains[level][rank]`` the domain of each rank at
    each of them; ``cable`` the cable that leads to it. Kinds are those inside nodes, then ``<level>.out`` and ``<level>.in`` for
    each level.
    """

    kinds: tuple[LinkKind, ...]
    inside: NodeLinks
    names: tuple[str, ...]
    domains: tuple[Index, ...]
    cables: tuple[int, ...]
    cable: tuple[Index, ...]
    machine: Machine
    layout: Layout
    _segments: dict[tuple[Groups, int], Segments] = field(default_factory=dict, repr=False, compare=False)
    classes: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # of flows, as found
    farthest: dict[Groups, Array] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # latencies, as found
    _single: dict[tuple[Groups, int], bool] = field(default_factory=dict, repr=False, compare=False)
    _homes: dict[tuple[Groups, int], Homes] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, machine: Machine, layout: Layout, levels: list[Level]) -> Links:
        """The links of ``machine``, a tree with these levels between the first node and the last one that holds a rank."""
        inside = NodeLinks.of(machine, layout)
        kinds = [*inside.kinds]
        for level in levels:
            count = level.domains * level.cables
            kinds += [
                LinkKind(f"{level.name}.out", level.capacity, count, level.name),
                LinkKind(f"{level.name}.in", level.capacity, count, level.name),
            ]
        return cls(
            tuple(kinds),
            inside,
            tuple(level.name for level in levels),
            tuple(level.domain[layout.node] for level in levels),
            tuple(level.cables for level in levels),
            tuple(level.slot[layout.node] for level in levels),
            machine,
            layout,
        )

    @property
    def levels(self) -> range:
        """Numbers of the fabric's levels."""
        return range(len(self.domains))

    def by_level(self) -> Iterator[tuple[str, Index, int, Index]]:
        """(name, domain of each rank, cables, cable that leads to each rank) of every level."""
        yield from zip(self.names, self.domains, self.cables, self.cable, strict=True)

    def single(self, groups: Groups, domain: Index) -> bool:
        """Whether no two groups have members in one domain; ``domain[rank]`` is an array that is kept, as these are."""
        key = (groups, id(domain))
        if key not in self._single:
            self._single[key] = alone_in(groups.members, domain)
        return self._single[key]

    def segments(self, groups: Groups, level: int) -> Segments:
        """The runs of members of ``groups`` that share a domain of a level; kept, since layers repeat."""
        key = (groups, level)
        if key not in self._segments:
            self._segments[key] = Segments.of(groups.members, self.domains[level])
        return self._segments[key]

    def homes(self, groups: Groups, level: int) -> Homes:
        """Where these runs lie; kept."""
        key = (groups, level)
        if key not in self._homes:
            runs, members, cables = self.segments(groups, level), groups.members.reshape(-1), self.cables[level]
            home = self.domains[level][members]
            of_run, at = home[runs.starts], home * cables + self.cable[level][members]
            first = np.flatnonzero(runs.starts % groups.members.shape[1] == 0)
            lengths = np.diff(first, append=len(of_run))
            self._homes[key] = Homes(
                of_run,
                first,
                int(lengths[0]) if (lengths == lengths[0]).all() else 0,
                at,
                _once(of_run),
                _once(at),
            )
        return self._homes[key]


def _once(numbers: Index) -> bool:
    """Whether no number comes twice."""
    return bool(np.bincount(numbers).max() == 1)


def alone_in(groups: Index, domain: Index) -> bool:
    """Whether no two of ``groups[g, i]`` have members in one domain."""
    number = np.arange(len(groups))[:, None]
    owner = np.empty(int(domain.max()) + 1, dtype=np.int64)
    owner[domain[groups]] = number
    return bool((owner[domain[groups]] == number).all())


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of ranks, ``members[g, i]``; those that share a node, or a domain of a tree, stand next to each other.

    Groups are equal to themselves alone, so that what is worked out for them can be kept by them.
    """

    members: Index


@dataclass(frozen=True)
class Segments:
    """Runs of consecutive members of a group that lie in one domain, over all groups flattened."""

    starts: Index
    lengths: Index
    size: int  # members of all groups

    @classmethod
    def of(cls, groups: Index, domain: Index) -> Segments:
        """The runs in ``groups[g, i]``, whose rows hold the members of a domain next to each other."""
        home = domain[groups]
        new = np.ones(home.shape, dtype=bool)
        new[:, 1:] = home[:, 1:] != home[:, :-1]
        starts = np.flatnonzero(new)
        return cls(starts, np.diff(np.append(starts, home.size)), home.size)

    @property
    def single(self) -> bool:
        """Whether every member is alone in its domain."""
        return len(self.starts) == self.size

    def sums(self, values: Array) -> Array:
        """For each run the sum of ``values`` (flat) over it; any axes may stand before."""
        return values if self.single else np.add.reduceat(values, self.starts, axis=-1)

    def numbers(self) -> Index:
        """For each member (flat) the number of its run."""
        return np.repeat(np.arange(len(self.starts)), self.lengths)

    def spread(self, of_run: Array) -> Array:
        """For each member (flat) what its run has."""
        return of_run if self.single else np.repeat(of_run, self.lengths, axis=-1)


@dataclass(frozen=True)
class Homes:
    """Where the runs of a level lie, and its links that lead to their members.

    ``of_run`` is the domain of each run, ``first`` the number of each group's first run, ``each`` how many a group has (0: it
    depends), ``at`` the incoming link of each member (flat); ``runs_once`` and ``once`` say whether each of these domains, or
    links, comes once.
    """

    of_run: Index
    first: Index
    each: int
    at: Index
    runs_once: bool
    once: bool

    def most(self, of_run: Array) -> Array:
        """The largest value of each group's runs, ``[…, group]``; 0 where a group lies in one domain, which it does not leave."""
        if self.each > 1:
            most: Array = of_run.reshape(*of_run.shape[:-1], -1, self.each).max(axis=-1)
            return most
        leaves = np.diff(self.first, append=len(self.of_run)) > 1  # members of a domain stand next to each other
        return np.where(leaves, np.maximum.reduceat(of_run, self.first, axis=-1), 0.0)


@dataclass(eq=False)
class LinkLoads:
    """Bytes on every link, kind by kind."""

    kinds: tuple[LinkKind, ...]
    loads: dict[str, Array] = field(default_factory=dict)

    def add(self, kind: str, at: Index, nbytes: Array) -> None:
        """Put bytes on numbered links of a kind."""
        count = next(each.count for each in self.kinds if each.name == kind)
        self.put(kind, np.bincount(at, weights=nbytes, minlength=count).astype(np.float64, copy=False))

    def put(self, kind: str, nbytes: Array) -> None:
        """Put bytes on every link of a kind."""
        self.loads[kind] = self.loads[kind] + nbytes if kind in self.loads else nbytes

    def plus(self, other: LinkLoads, factor: float) -> None:
        """Add ``factor`` times other loads."""
        for kind, loads in other.loads.items():
            more = loads if factor == 1.0 else factor * loads
            self.loads[kind] = self.loads[kind] + more if kind in self.loads else more

    def busy(self) -> Iterator[tuple[LinkKind, Array]]:
        """Seconds that every link of each loaded kind needs for its bytes."""
        for kind in self.kinds:
            if kind.name in self.loads and self.loads[kind.name].any():
                yield kind, self.loads[kind.name] / kind.each


@dataclass(frozen=True)
class Messages:
    """The messages of a step in which each member of a group sends at most one, and the links that they pass.

    All arrays have one entry for each message. ``member`` numbers the senders (flat over groups), ``passed[kind]`` is the
    number of the link of each kind that a message passes, -1 where it passes none.
    """

    member: Index
    group: Index
    passed: dict[str, Index]

    @classmethod
    def of(cls, links: Links, groups: Index, targets: Index) -> Messages:
        """Messages from ``groups[g, i]`` to ``targets[g, i]``, where that is not -1."""
        source, target = groups.reshape(-1), targets.reshape(-1)
        member = np.arange(len(target))
        if target.min(initial=0) < 0:
            member = np.flatnonzero(target >= 0)
            source, target = source[member], target[member]
        none = np.full(len(member), -1)
        near = links.domains[0][source] == links.domains[0][target]
        ends = zip(links.inside.kinds, (source, target), strict=False)
        beside = bool(near.any())
        passed = {kind.name: np.where(near, links.inside.link[end], -1) if beside else none for kind, end in ends}
        for name, domain, cables, cable in links.by_level():
            out, into = domain[source], domain[target]
            across = out != into
            for way, home in (("out", out), ("in", into)):
                link = home if cables == 1 else home * cables + cable[target]
                passed[f"{name}.{way}"] = np.where(across, link, -1)
        return cls(member, np.repeat(np.arange(len(groups)), groups.shape[1])[member], passed)


def step_loads(links: Links, messages: Messages, sent: Array) -> LinkLoads:
    """Loads of messages when each member of a group has ``sent[g, i]`` bytes for whom it sends to."""
    loads = LinkLoads(links.kinds)
    nbytes = sent.reshape(-1)[messages.member]
    for kind in links.kinds:
        link = messages.passed[kind.name]
        if link.max(initial=-1) >= 0:  # of messages that pass none, the first place counts
            on_links = np.bincount(link + 1, weights=nbytes, minlength=kind.count + 1)[1:]
            loads.put(kind.name, on_links.astype(np.float64, copy=False))
        else:
            loads.put(kind.name, np.zeros(kind.count))
    return loads


def all_pairs_loads(links: Links, among: Groups, sent: Array, share: Array) -> LinkLoads:
    """Loads when member i of a group sends ``sent[…, g, i] * share[…, g, j]`` bytes to each other member j.

    Shares sum to 1 over a group; the part that a rank sends to itself moves nowhere. Several exchanges of the same groups stand
    along a first axis, which the loads then have too.
    """
    groups, flat = among.members, (*sent.shape[:-2], among.members.size)
    loads, members, nbytes, part = LinkLoads(links.kinds), groups.reshape(-1), sent.reshape(flat), share.reshape(flat)
    counts = {kind.name: kind.count for kind in links.kinds}
    by_group = sent.sum(axis=-1)
    for level, (name, _, cables, cable) in enumerate(links.by_level()):
        runs, homes = links.segments(among, level), links.homes(among, level)
        run_share, run_sent = runs.sums(part), runs.sums(nbytes)
        if level == 0 and not runs.single:
            near_share, near_sent = runs.spread(run_share), runs.spread(run_sent)
            sends, receives = nbytes * np.maximum(near_share - part, 0.0), part * np.maximum(near_sent - nbytes, 0.0)
            for kind, moved in zip(links.inside.kinds, (sends, receives), strict=False):
                loads.put(kind.name, _counted(links.inside.link[members], False, moved, kind.count))
        runs_of_group = np.diff(homes.first, append=len(runs.starts))
        others = np.maximum(np.repeat(by_group, runs_of_group, axis=-1) - run_sent, 0.0)
        arriving, leaving = f"{name}.in", f"{name}.out"
        if cables == 1:
            loads.put(arriving, _counted(homes.of_run, homes.runs_once, run_share * others, counts[arriving]))
            outside = run_sent * np.maximum(1.0 - run_share, 0.0)
            loads.put(leaving, _counted(homes.of_run, homes.runs_once, outside, counts[leaving]))
        else:
            loads.put(arriving, _counted(homes.at, homes.once, part * runs.spread(others), counts[arriving]))
            loads.put(leaving, _by_cable(groups, runs, homes, run_sent, part, cable[members], cables, counts[leaving]))
    return loads


def _counted(at: Index, once: bool, nbytes: Array, count: int) -> Array:
    """Bytes by number of ``count``, summed over the last axis; where no number comes twice, nothing has to be added up."""
    if once:
        every = np.zeros((*nbytes.shape[:-1], count))
        every[..., at] = nbytes
        return every
    rows = nbytes.reshape(-1, len(at))
    places = at if len(rows) == 1 else (at + count * np.arange(len(rows))[:, None]).reshape(-1)
    found = np.bincount(places, weights=rows.reshape(-1), minlength=len(rows) * count)
    return found.astype(np.float64, copy=False).reshape(*nbytes.shape[:-1], count)


def _by_cable(
    groups: Index, runs: Segments, homes: Homes, run_sent: Array, share: Array, cable: Index, cables: int, count: int
) -> Array:
    """Bytes on each outgoing cable: the destination picks it, so shares are summed by cable, outside the own domain."""
    before = share.shape[:-1]
    group, run = np.repeat(np.arange(len(groups)), groups.shape[1]), runs.numbers()
    by_group = _counted(group * cables + cable, False, share, len(groups) * cables).reshape(*before, -1, cables)
    by_run = _counted(run * cables + cable, False, share, len(runs.starts) * cables).reshape(*before, -1, cables)
    outside = np.maximum(by_group[..., group[runs.starts], :] - by_run, 0.0)
    leaving = (run_sent[..., None] * outside).reshape(*before, -1)
    at = (homes.of_run[:, None] * cables + np.arange(cables)).reshape(-1)
    return _counted(at, homes.runs_once, leaving, count)
