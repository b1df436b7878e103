"""An uneven all-to-all at once: messages of alike senders are one class, as long as no sender's own interface holds them back.

Where ranks receive unequal parts no two of them are alike, and P ranks have P² messages that differ. But of two senders in one
domain of a tree, with the same bytes to send, the messages to a third rank differ only in the senders' own interfaces. So
these are left out, and looked at whenever rates change: as long as none is asked for more than it carries, rates are
those of single messages, for each message still has a full link, and no link carries more than it can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..network.distinct import distinct
from ..network.fluid import TOGETHER, Fluid
from ..network.links import Array, Index
from .message_tables import MessageSteps, Sends

ROOM = 1.0 + 1e-9
"""What an interface that is exactly full may seem to carry."""


@dataclass(frozen=True)
class Classes:
    """Messages from a group of senders to one receiver.

    ``messages`` has one row for each pair of a group and a receiver, group after group; ``group[rank]`` is the group of each
    sender.
    """

    messages: Sends
    group: Index

    @property
    def groups(self) -> int:
        """How many groups of senders there are."""
        return int(self.group.max()) + 1


def play_merged(steps: MessageSteps) -> Array | None:
    """When each rank is through, all of them coming at zero; None where messages cannot be merged, or an interface fills up."""
    classes = _classes(steps)
    if classes is None:
        return None
    ends = _play(steps, classes)
    return None if ends is None else _through(steps, classes, ends)


def _classes(steps: MessageSteps) -> Classes | None:
    """The classes of a collective that is a single step in which every rank sends to every other of its only group."""
    graph, payload = steps.graph, steps.payloads[0] if steps.payloads else None
    levels = graph.machine.fabric.levels(graph.nodes, graph.machine.injection)
    node, ranks = graph.layout.node, graph.layout.mesh.ranks
    one_crowd = len(steps.rounds) == len(steps.groups) == 1 and steps.rounds[0].everyone and steps.ranks == ranks
    if not one_crowd or payload is None or payload.share is None or steps.model.reverse or levels is None:
        return None
    if len(distinct(node)) < ranks:
        return None
    columns = [payload.sent, *(level.domain[node] for level in levels[1:])]
    _, first, group = np.unique(np.column_stack(columns), axis=0, return_index=True, return_inverse=True)
    group, size = group.reshape(-1), np.bincount(group.reshape(-1))
    if size.min() < 2:
        return None
    other = np.array([np.flatnonzero(group == number)[1] for number in range(len(first))])
    receiver = np.tile(np.arange(ranks), len(first))
    sender = np.repeat(first, ranks)
    sender = np.where(sender == receiver, np.repeat(other, ranks), sender)
    times = np.repeat(size, ranks) - (np.repeat(np.arange(len(first)), ranks) == group[receiver])
    return Classes(steps.merged(sender, receiver, times.astype(np.float64)), group)


def _play(steps: MessageSteps, classes: Classes) -> Array | None:
    """When the messages of each class end; None where an interface would be full."""
    each, ranks = classes.messages, np.arange(len(classes.group))
    count = len(each.wait)
    fluid, every = Fluid(count, each.links.shape[1], np.append(steps.capacity, np.inf)), np.arange(count)
    fluid.book(every, each.links, each.usage, each.weight, each.limit, each.nbytes)
    waiting, ends = np.where(each.nbytes > 0, each.wait, np.inf), each.wait.copy()
    group, own = every // len(ranks), classes.group * len(ranks) + ranks
    room = steps.graph.machine.injection * steps.model.bandwidth_factor * ROOM
    while (now := min(fluid.next(), first := float(waiting[waiting.argmin()]))) < np.inf:
        ends[fluid.advance(now)] = now
        if first <= now * TOGETHER:
            ready = np.flatnonzero(waiting <= now * TOGETHER)
            waiting[ready] = np.inf
            fluid.begin(ready)
        fluid.settle()
        asked = np.bincount(group, fluid.rate, classes.groups)
        if asked.max() > room and (asked[classes.group] - fluid.rate[own]).max() > room:
            return None
    return ends


def _through(steps: MessageSteps, classes: Classes, ends: Array) -> Array:
    """When each rank has sent and received all, and its processor has posted all its messages."""
    ranks = len(classes.group)
    by_group = ends.reshape(classes.groups, ranks).copy()
    alone = np.bincount(classes.group) == 1
    received = by_group.max(axis=0)
    sent = np.empty(ranks)
    for number, row in enumerate(by_group):
        last = int(row.argmax())
        second = float(np.delete(row, last).max(initial=0.0))
        members = classes.group == number
        sent[members] = row[last]
        if classes.group[last] == number and not alone[number]:
            sent[last] = second
    posted = float(classes.messages.wait.max()) + (ranks - 2) * steps.overhead
    through: Array = np.maximum(np.maximum(received, sent), posted if steps.overhead else 0.0)
    return through
