"""Which flows and links are alike: an equitable partition, found by colour refinement.

Colours start from what distinguishes flows by themselves and are refined by the colours that they meet on their links
and in their groups, until nothing splits any more. Flows of one colour then have one max-min rate, so a solver may
treat them as one. Nothing is assumed about the algorithm or the placement: ranks that only look alike end in different
classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import DoesNotFit
from ..distinct import first_of_each, numbered
from ..links import Array, Groups, Index, Links, Messages
from .flow_classes import ClassEnds, Demand, alone_at_once

MOST_CLASSES = 4_000
"""Flow classes above which the fluid depth is refused: its matrices grow with their square."""

MOST_KINDS = 1_000
"""Kinds of ranks above which it is refused, too: what each sees of each other is a matrix."""

MOST_PATTERNS = 64
"""Ways in which ranks of a group can be equal for which classes are kept."""

Hash = NDArray[np.uint64]

Marks = NDArray[np.bool_]
"""For each link of all kinds whether it is marked."""


class TooManyClasses(DoesNotFit):
    """Flows differ so much that the fluid depth is refused; links need no classes."""


def alike(*columns: NDArray[np.generic]) -> Index:
    """Colours 0, 1, … of the distinct rows of equally long columns of 64-bit numbers."""
    differing = [column for column in columns if (column != column[0]).any()]
    if not differing:
        return np.zeros(len(columns[0]), dtype=np.int64)
    key = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in differing:
        key = scattered(key * np.uint64(31) + column.view(np.uint64))
    return numbered(key)


def scattered(numbers: Hash) -> Hash:
    """Numbers scattered over 64 bits, equal ones alike (splitmix64)."""
    mixed = numbers + np.uint64(1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def met(colour: Index, domain: Index, domains: int) -> Hash:
    """For each domain a fingerprint of the colours in it and how often each occurs."""
    colours = int(colour.max()) + 1
    if colours == 1:
        return np.bincount(domain, minlength=domains).astype(np.uint64)
    prints = np.zeros(domains, dtype=np.uint64)
    np.add.at(prints, domain, scattered(np.arange(colours, dtype=np.uint64))[colour])
    return prints


def _refine(colour: Index, domains: list[Index]) -> Index:
    """Split colours by what they meet in each of their domains, until nothing splits. ``-1`` means in no domain."""
    while True:
        views: list[NDArray[np.generic]] = [colour]
        for domain in domains:
            if domain.min() >= 0:
                prints = met(colour, domain, int(domain.max()) + 1)
                if (prints[domain[0]] == prints[prints != 0]).all():
                    continue  # all domains are alike, and every member lies in one
                views.append(prints[domain])
            elif (inside := np.flatnonzero(domain >= 0)).size:
                seen = np.zeros(len(colour), dtype=np.uint64)
                seen[inside] = met(colour[inside], domain[inside], int(domain.max()) + 1)[domain[inside]]
                views.append(seen)
        finer = alike(*views)
        if finer.max() == colour.max():
            return finer
        colour = finer


@dataclass(frozen=True)
class _Census:
    """Domains that are alike in the colours they hold.

    ``numbers`` are the domains that occur, ``kind[d]`` the kind of each, ``counts[kind, colour]`` how many of a colour are in
    a domain of a kind.
    """

    numbers: Index
    kind: Index
    counts: Array

    @classmethod
    def of(cls, colour: Index, domain: Index, colours: int) -> _Census:
        """Count the colours in each domain."""
        prints = met(colour, domain, int(domain.max()) + 1)
        numbers = np.flatnonzero(prints)
        kind = alike(prints[numbers])
        examples = numbers[first_of_each(kind)]
        counts = [np.bincount(colour[domain == example], minlength=colours) for example in examples]
        return cls(numbers, kind, np.array(counts, dtype=np.float64))


class _Classes:
    """Collects link classes column by column, and makes the demand of them."""

    def __init__(self, links: Links) -> None:
        ends = np.cumsum([kind.count for kind in links.kinds])
        self.start = {kind.name: int(end) - kind.count for kind, end in zip(links.kinds, ends, strict=True)}
        self.capacity = {kind.name: kind.capacity for kind in links.kinds}
        self.link_class = np.full(int(ends[-1]), -1, dtype=np.int64)
        self.columns: list[Array] = []
        self.names: list[str] = []

    def add(self, kind: str, numbers: Index, link_kind: Index, flows: Array) -> None:
        """Links ``numbers`` of a kind, the class of each, and ``flows[class, flow class]`` on one link of each class."""
        if flows.any():
            self.link_class[self.start[kind] + numbers] = len(self.columns) + link_kind
            self.columns += list(flows)
            self.names += [kind] * len(flows)

    def demand(self, nbytes: Array, groups: _Census, colour_of_flow: Index, latency: Array) -> Demand:
        """The demand of flow classes with these bytes and latencies; a group waits for the flows of the colours that it holds."""
        members: NDArray[np.bool_] = np.asarray(groups.counts[:, colour_of_flow] > 0)
        return Demand(
            nbytes=nbytes,
            usage=np.array(self.columns).T if self.columns else np.zeros((len(nbytes), 0)),
            capacity=np.array([self.capacity[name] for name in self.names]),
            weight=np.ones(len(nbytes)),
            names=tuple(self.names),
            link_class=lambda: self.link_class,
            ends=ClassEnds(members, None if len(members) == 1 else groups.kind, latency),
        )


def step_demand(links: Links, groups: Index, targets: Index, sent: Array, apart: Marks | None = None) -> Demand:
    """Flow classes when each member sends ``sent[g, i]`` bytes to rank ``targets[g, i]`` (none: -1): flows are coloured.

    Every group sends something. Links that are looked at ``apart`` are alike to no other.
    """
    messages = Messages.of(links, groups, targets)
    nbytes, group = sent.reshape(-1)[messages.member], messages.group
    start, own = 0, []
    if apart is not None:
        for kind in links.kinds:
            link = messages.passed[kind.name]
            own.append(np.where((link >= 0) & apart[start + link], link, -1))
            start += kind.count
    colour = _refine(alike(nbytes, *own), [group, *messages.passed.values()])
    colours = checked(int(colour.max()) + 1)
    classes = _Classes(links)
    for name, link in messages.passed.items():
        used = np.flatnonzero(link >= 0)
        if len(used):
            census = _Census.of(colour[used], link[used], colours)
            classes.add(name, census.numbers, census.kind, census.counts)
    first = first_of_each(colour)
    one = messages.member[first]
    ends = links.layout.node[groups.reshape(-1)[one]], links.layout.node[targets.reshape(-1)[one]]
    latency = links.machine.fabric.latencies(*ends)
    return classes.demand(nbytes[first], _Census.of(colour, group, colours), np.arange(colours), latency)


def all_pairs_demand(links: Links, among: Groups, sent: Array, share: Array, apart: Marks | None = None) -> Demand:
    """Flow classes when member i of a group sends ``sent[g, i] * share[g, j]`` bytes to each other member j.

    Ranks are coloured, not flows: a flow class is (colour of the sender, colour of the receiver, levels crossed). Links that
    are looked at ``apart`` are alike to no other. Classes follow from which ranks have equal amounts, not from these: they are
    kept for the next exchange of the same groups.
    """
    ranks, nbytes, part = among.members.reshape(-1), sent.reshape(-1), share.reshape(-1)
    own_links = _own_links(links, ranks, apart) if apart is not None else []
    amounts = _in_order(alike(nbytes, part, *own_links))
    demand, sender, receiver = _known_classes(links, among, amounts, apart)
    found: Demand = replace(demand, nbytes=nbytes[sender] * part[receiver])
    return found


def all_pairs_alone(links: Links, among: Groups, sent: Array, share: Array, overhead: float) -> Array:
    """Seconds of each group, ``[exchange, group]``, of several such exchanges, each with the network to itself.

    Those in which the same ranks have equal amounts have one set of classes, and are played together.
    """
    nbytes, part = sent.reshape(len(sent), -1), share.reshape(len(share), -1)
    ends, left = np.zeros(sent.shape[:2]), np.arange(len(sent))
    while len(left):
        amounts = _in_order(alike(nbytes[left[0]], part[left[0]]))
        like = _alike_in(nbytes[left], part[left], amounts)
        demand, sender, receiver = _known_classes(links, among, amounts, None)
        these = left[like]
        ends[these] = alone_at_once(demand, nbytes[these][:, sender] * part[these][:, receiver], overhead)
        left = left[~like]
    return ends


def _alike_in(nbytes: Array, part: Array, amounts: Index) -> Marks:
    """Of which exchanges, ``[exchange, rank]``, the ranks have equal amounts where ``amounts`` are equal, and only there."""
    first = first_of_each(amounts)
    like = first[amounts]
    same = (nbytes == nbytes[:, like]).all(axis=1) & (part == part[:, like]).all(axis=1)
    one, other = (np.ascontiguousarray(each[:, first]).view(np.uint64) for each in (nbytes, part))
    prints = np.sort(scattered(scattered(one) * np.uint64(31) + other), axis=1)
    distinct = (prints[:, 1:] != prints[:, :-1]).all(axis=1)
    found: Marks = same & distinct
    found[0] = True
    return found


def _known_classes(links: Links, among: Groups, amounts: Index, apart: Marks | None) -> tuple[Demand, Index, Index]:
    """The classes of ranks with equal ``amounts``, kept by the links."""
    key = (among, amounts.tobytes(), None if apart is None else apart.tobytes())
    if key not in links.classes:
        if len(links.classes) >= MOST_PATTERNS:
            del links.classes[next(iter(links.classes))]
        links.classes[key] = _classes_of(links, among, amounts)
    found: tuple[Demand, Index, Index] = links.classes[key]
    return found


def _in_order(colour: Index) -> Index:
    """The same colours, numbered by where each comes first."""
    first = first_of_each(colour)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[colour]


def _classes_of(links: Links, among: Groups, amounts: Index) -> tuple[Demand, Index, Index]:
    """Flow classes of ranks with equal ``amounts`` where these are equal, and a sender and a receiver (flat) of each class."""
    groups, ranks = among.members, among.members.reshape(-1)
    group = np.repeat(np.arange(len(groups)), groups.shape[1])
    runs = [links.segments(among, level).numbers() for level in links.levels]
    homes = [domain[ranks] for domain in links.domains]
    lanes = [home * n + cable[ranks] for home, n, cable in zip(homes, links.cables, links.cable, strict=True)]
    slots = [cable[ranks] for cable in links.cable]  # over the whole machine: all zero where routing is adaptive
    colour = _refine(amounts, [group, *runs, *homes, *lanes, *slots])
    colours = checked(int(colour.max()) + 1, "ranks", MOST_KINDS)
    first = first_of_each(colour)
    peers, example = _peers(colour, first, group, runs)
    sender, receiver, crossed = np.nonzero(peers)
    checked(len(sender))
    going, coming = peers[sender, receiver, crossed], peers[receiver, sender, crossed]
    classes = _Classes(links)
    own = _Census.of(colour, links.inside.link[ranks], colours)
    for kind, end, flows in zip(links.inside.kinds, (sender, receiver), (going, coming), strict=False):
        classes.add(kind.name, own.numbers, own.kind, own.counts[:, end] * np.where(crossed == 0, flows, 0.0))
    for level, (name, _, cables, _) in enumerate(links.by_level()):
        leaving, arriving = np.where(crossed > level, going, 0.0), np.where(crossed > level, coming, 0.0)
        lane = _Census.of(colour, lanes[level], colours)
        classes.add(f"{name}.in", lane.numbers, lane.kind, lane.counts[:, receiver] * arriving)
        home = _Census.of(colour, homes[level], colours)
        flows, numbers, like = home.counts[:, sender] * leaving, home.numbers, home.kind
        if cables > 1:
            flows, numbers, like = _by_cable(home, flows, _Census.of(colour, slots[level], colours), receiver, cables)
        classes.add(f"{name}.out", numbers, like, flows)
    ends = (links.layout.node[ranks[each]] for each in example)
    latency = links.machine.fabric.latencies(*ends)[crossed]
    demand = classes.demand(np.ones(len(sender)), _Census.of(colour, group, colours), sender, latency)
    return demand, first[sender], first[receiver]


def _own_links(links: Links, ranks: Index, apart: Marks) -> list[Index]:
    """For each rank the links inside its node, domains and cables that are looked at apart; -1 where they are not."""
    start, found = 0, []
    for kind in links.inside.kinds:
        own = links.inside.link[ranks]
        found.append(np.where(apart[start + own], own, -1))
        start += kind.count
    for level, (_, domain, cables, cable) in enumerate(links.by_level()):
        count = links.kinds[len(links.inside.kinds) + 2 * level].count
        both = apart[start : start + count] | apart[start + count : start + 2 * count]
        marked = np.asarray(both.reshape(-1, cables).any(axis=1))
        start += 2 * count
        found += [np.where(marked[domain[ranks]], domain[ranks], -1), np.where(marked.any(), cable[ranks], -1)]
    return found


def _peers(colour: Index, first: Index, group: Index, runs: list[Index]) -> tuple[Array, Index]:
    """``peers[a, b, r]``: members of colour b that one of colour a sees in its group beyond r levels of links, itself not.

    And places of two members, ``[2, r]``, that are so far from each other.
    """
    colours, depth = len(first), len(runs) + 1
    peers, example = np.zeros((colours, colours, depth)), np.zeros((2, depth), dtype=np.int64)
    ends = np.searchsorted(group, group[first], side="right")
    starts = np.searchsorted(group, group[first], side="left")
    for a, (at, start, end) in enumerate(zip(first, starts, ends, strict=True)):
        crossed = np.sum([run[start:end] != run[at] for run in runs], axis=0)
        seen = np.bincount(colour[start:end] * depth + crossed, minlength=colours * depth)
        peers[a] = seen.reshape(colours, depth)
        peers[a, a, 0] -= 1
        beyond, one = np.unique(crossed, return_index=True)
        example[0, beyond], example[1, beyond] = at, start + one
    return peers, example


def _by_cable(home: _Census, flows: Array, lane: _Census, receiver: Index, cables: int) -> tuple[Array, Index, Index]:
    """Flows on outgoing cables, their numbers and kinds.

    The receiver's slot picks the cable; cables that lead to receivers of the same colours share the flows to them evenly.
    """
    kinds = len(lane.counts)
    cable_kind = np.full(cables, kinds, dtype=np.int64)  # cables that no rank uses are a kind of their own
    cable_kind[lane.numbers] = lane.kind
    kind_of_colour = lane.counts.argmax(axis=0)
    alike_cables = np.bincount(lane.kind)
    columns = [
        np.where(kind_of_colour[receiver] == kind, leaving / alike_cables[kind], 0.0) if kind < kinds else 0.0 * leaving
        for leaving in flows
        for kind in range(kinds + 1)
    ]
    numbers = (home.numbers[:, None] * cables + np.arange(cables)).reshape(-1)
    return np.array(columns), numbers, (home.kind[:, None] * (kinds + 1) + cable_kind).reshape(-1)


def checked(classes: int, what: str = "flows", most: int = MOST_CLASSES) -> int:
    """The number of classes; raises :class:`TooManyClasses` where they are too many."""
    if classes > most:
        raise TooManyClasses(
            f"--depth fluid: {classes:,} classes of unequal {what} exceed {most:,}; --depth links needs none"
        )
    return classes
