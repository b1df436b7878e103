"""Which messages and links are alike where routes are all that is known: an equitable partition of both.

Colours start from the bytes of messages and the kinds of links. In turn, links are split by the colours of the messages on
them and messages by the colours of the links on their way, until nothing splits any more. Messages of one colour then have
one max-min rate, as in :mod:`athanor.sim.network.phases.flow_symmetry`, which does the same for the domains of trees.
"""

from __future__ import annotations

import numpy as np

from ..distinct import first_of_each
from ..links import Array, Index
from ..routes import Flows
from .flow_classes import ClassEnds, Demand
from .flow_symmetry import Hash, Marks, alike, checked, met, scattered


def route_demand(flows: Flows, nbytes: Array, groups: int, apart: Marks | None = None) -> Demand:
    """Flow classes of messages with these bytes; raises :class:`~.flow_symmetry.TooManyClasses` where they are too many.

    Links that are looked at ``apart`` are alike to no other.
    """
    kind_of_link = flows.graph.kind
    if apart is not None:
        kind_of_link = np.where(apart, len(flows.graph.kinds) + np.arange(len(apart)), kind_of_link)
    colour, link_colour = _partition(flows, nbytes, alike(kind_of_link, flows.graph.capacity))
    usage, example, link_class = _usage(flows, colour, link_colour)
    first = first_of_each(colour)
    like = alike(met(colour, flows.group, groups))
    members = np.zeros((int(like.max()) + 1, len(first)), dtype=bool)
    members[like[flows.group], colour] = True
    kinds, latency = flows.graph.kinds, np.zeros(len(first))
    np.maximum.at(latency, colour, flows.latency)
    return Demand(
        nbytes=nbytes[first],
        usage=usage,
        capacity=flows.graph.capacity[example],
        weight=np.ones(len(first)),
        names=tuple(kinds[number].name for number in flows.graph.kind[example]),
        link_class=lambda: link_class,
        ends=ClassEnds(members, None if len(members) == 1 else like, latency),
    )


def _partition(flows: Flows, nbytes: Array, link_colour: Index) -> tuple[Index, Index]:
    """Colours of messages and of links, refined until no message splits."""
    colour = alike(nbytes)
    while True:
        link_colour = alike(link_colour, _on_links(flows, colour))
        finer = alike(colour, _on_ways(flows, link_colour))
        if finer.max() == colour.max():
            return finer, link_colour
        colour = finer
        checked(int(colour.max()) + 1)


def _on_links(flows: Flows, colour: Index) -> Hash:
    """For each link a fingerprint of the colours of the messages on it and how often each occurs."""
    marks, prints = _marks(colour), np.zeros(len(flows.graph.kind), dtype=np.uint64)
    for part in flows.parts:
        np.add.at(prints, part.links, np.repeat(marks[part.own(colour)], part.lengths))
    return prints


def _on_ways(flows: Flows, link_colour: Index) -> Hash:
    """For each message a fingerprint of the colours of the links that it passes."""
    marks = _marks(link_colour)
    return np.concatenate([np.add.reduceat(marks[link_colour[part.links]], part.starts) for part in flows.parts])


def _marks(colour: Index) -> Hash:
    """A number for each colour, of which sums tell what was added up."""
    return scattered(np.arange(int(colour.max()) + 1, dtype=np.uint64))


def _usage(flows: Flows, colour: Index, link_colour: Index) -> tuple[Array, Index, Index]:
    """Messages of each colour on one link of each class, such a link, and the class of every link (-1: not used)."""
    used = np.zeros(len(link_colour), dtype=bool)
    for part in flows.parts:
        used[part.links] = True
    _, example, number = np.unique(link_colour[used], return_index=True, return_inverse=True)
    link_class = np.full(len(link_colour), -1, dtype=np.int64)
    link_class[used] = number
    example = np.flatnonzero(used)[example]
    here = np.full(len(link_colour), -1, dtype=np.int64)
    here[example] = np.arange(len(example))
    shape = int(colour.max()) + 1, len(example)
    usage = np.zeros(shape[0] * shape[1])
    for part in flows.parts:
        at = here[part.links]
        counted = at >= 0
        by = np.repeat(part.own(colour), part.lengths)[counted]
        np.add.at(usage, by * shape[1] + at[counted], 1.0)
    return usage.reshape(shape), example, link_class
