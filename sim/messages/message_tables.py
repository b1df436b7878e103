"""The steps of a collective as tables: to whom each orbit of ranks sends, over which links, and how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...hardware.message_costs import BOTH, ONE
from ...workloads.collectives import Round, check, rounds
from ...workloads.schedule.work import Exchange
from ..network.links import Array, Index
from ..network.message_costs import MessageCosts
from ..network.network_models import SHARING, Sharing
from ..network.phases.flow_symmetry import alike, scattered
from ..network.phases.round_bytes import Payload, payloads
from ..network.phases.traffic_factors import TrafficFactors, traffic_factors
from ..network.topology import Graph
from .rank_symmetry import RankSymmetry

WINDOW = 1 << 16
"""Messages of a table at most, so that it stays in the cache; longer collectives are looked at window by window."""

KEPT = 1 << 21
"""Messages up to which all tables are kept."""


@dataclass(frozen=True)
class Sends:
    """Messages by any shape: from and to which orbit of ranks, on which orbits of links.

    ``links[..., hop]`` and ``usage[..., hop]``: of its rate a message takes so much on one link of the orbit, counting all
    that are alike: those of the other ranks of its orbit, and ``times`` of each rank. ``wait`` seconds pass before the first
    byte, and its rate is at most ``limit``.
    """

    sender: Index
    receiver: Index
    links: Index
    usage: Array
    wait: Array
    nbytes: Array
    weight: Array
    limit: Array
    times: Array

    def __getitem__(self, which: object) -> Sends:
        """Some of the messages."""
        return Sends(*(each[which] for each in vars(self).values()))


@dataclass(frozen=True)
class StepTotals:
    """What all steps together bring.

    ``loads[orbit]`` bytes on one link of each orbit; the seconds that each orbit of ranks needs for its messages, one after
    another and each with the network to itself; how much of such a chain is waits before first bytes, at most; and the messages
    of all ranks.
    """

    loads: Array
    chains: Array
    waits: float
    messages: int


class MessageSteps:
    """All steps of a collective that groups of ranks run, seen from one rank of each orbit."""

    def __init__(
        self,
        graph: Graph,
        groups: Index,
        rounds: Sequence[Round],
        inner: int,
        payloads: Sequence[Payload],
        model: Sharing,
        overhead: float,
        orbits: RankSymmetry,
        factors: TrafficFactors | None = None,
    ) -> None:
        self.factors = factors
        self.graph, self.groups, self.rounds, self.inner = graph, groups, list(rounds), inner
        self.payloads, self.model, self.overhead, self.orbits = payloads, model, overhead, orbits
        self.costs = MessageCosts.of(graph.machine)
        self.ends = np.cumsum([each.steps for each in self.rounds], dtype=np.int64)
        self.starts = self.ends - [each.steps for each in self.rounds]
        self.total = int(self.ends[-1]) if self.rounds else 0
        group, position = np.empty(groups.size, dtype=np.int64), np.empty(groups.size, dtype=np.int64)
        group[groups] = np.arange(len(groups))[:, None]
        position[groups] = np.arange(groups.shape[1])
        self.group, self.position = group[orbits.first], position[orbits.first]
        self.capacity = graph.capacity[orbits.example] * model.bandwidth_factor
        self._bandwidth = np.append(graph.capacity * model.bandwidth_factor, np.inf)
        self._a_byte = 1.0 / np.append(graph.capacity, np.inf)
        self._windows: list[Window] = []

    @classmethod
    def of_exchange(cls, graph: Graph, exchange: Exchange, orbits: RankSymmetry) -> MessageSteps:
        """The steps of an exchange of a schedule, in all groups along its axes at once."""
        layout, size = graph.layout, graph.layout.mesh.size(*exchange.axes)
        grid = layout.two_level(exchange.axes)
        outer, inner = (1, size) if grid is None else grid.shape[1:]
        even = isinstance(exchange.nbytes, float) and exchange.received is None and exchange.pairs is None
        check(exchange.operation, exchange.algorithm, size, uneven=not even and exchange.operation == "all-to-all")
        found = rounds(exchange.operation, exchange.algorithm, outer, inner)
        groups = np.roll(layout.groups(exchange.axes), -exchange.root, axis=1)
        return cls(
            graph,
            groups,
            found,
            inner,
            payloads(layout, exchange, found),
            SHARING["maxmin"],
            graph.machine.calibration.message_overhead,
            orbits,
            traffic_factors(graph.machine, layout, groups, exchange.operation, exchange.algorithm),
        )

    @cached_property
    def crowds(self) -> dict[int, Sends]:
        """Messages of the steps in which every rank sends to every other, by step."""
        return {int(self.starts[n]): self._everyone(n) for n, each in enumerate(self.rounds) if each.everyone}

    @property
    def ranks(self) -> int:
        """Orbits of ranks."""
        return len(self.orbits.first)

    @property
    def nowhere(self) -> int:
        """The number of the link that stands for none."""
        return len(self.capacity)

    @property
    def size(self) -> float:
        """Messages that have to be looked at one by one."""
        return self.ranks * float(sum(self._distinct(each) for each in self.rounds))

    def _distinct(self, each: Round) -> int:
        """Messages of a rank in a round, those of equal steps counted once."""
        return self._scope(each.scope)[1] - 1 if each.everyone else 1 if each.pattern.repeats else each.steps

    def rows(self) -> Iterator[tuple[Sends, int]]:
        """(messages of a step, flat; how often it comes in a row) of all steps that differ from the one before."""
        for window in self._all():
            if window.crowd:
                yield window.messages, 1
            else:
                times = (window.high - window.low) // len(window.source)
                yield from ((window.messages[row], times) for row in range(len(window.source)))

    def _all(self) -> Iterator[Window]:
        """The tables of all steps, one after another."""
        low = 0
        while low < self.total:
            window = self.window(low)
            yield window
            low = window.high

    @cached_property
    def least(self) -> Array:
        """Seconds below which each group cannot be, ``[groups]``, whatever others do and however ranks wait for each other.

        Its most loaded link has to carry all that the group sends over it, and each rank has to send its messages one after
        another, each of which takes what it takes alone.
        """
        found = np.zeros(len(self.groups))
        np.maximum.at(found, self.group, self.totals.chains)
        if len(found) == 1:
            most = float((self.totals.loads / self.capacity).max(initial=0.0))
            return found.clip(most)
        links = self.nowhere + 1
        keys: Index = np.zeros(0, dtype=np.int64)
        carried: Array = np.zeros(0)
        for window in self._all():
            each, times = window.flat, (window.high - window.low) // len(window.source)
            for hop in range(each.links.shape[-1]):
                key, number = np.unique(self.group[each.sender] * links + each.links[:, hop], return_inverse=True)
                moved = times * np.bincount(number, each.usage[:, hop] * each.nbytes, len(key))
                keys, number = np.unique(np.concatenate([keys, key]), return_inverse=True)
                carried = np.bincount(number, np.concatenate([carried, moved]), len(keys)).astype(np.float64)
        seconds = carried / np.append(self.capacity, np.inf)[keys % links]
        np.maximum.at(found, keys // links, seconds)
        return found

    @cached_property
    def totals(self) -> StepTotals:
        """Sums over all steps."""
        loads, chain, waits, count = np.zeros(self.nowhere + 1), np.zeros(self.ranks), 0.0, 0.0
        for window in self._all():
            each, times = window.messages, (window.high - window.low) // len(window.source)
            for hop in range(each.links.shape[-1]):
                moved = each.usage[..., hop] * each.nbytes
                loads += times * np.bincount(each.links[..., hop].reshape(-1), moved.reshape(-1), len(loads))
            alone = np.where(each.receiver >= 0, each.wait + each.nbytes / each.limit, 0.0)
            if window.crowd:
                longest = np.zeros(self.ranks)
                np.maximum.at(longest, each.sender, alone)
            else:
                longest = alone.sum(axis=0)
            chain += times * longest
            waits += times * float(each.wait.max(initial=0.0) if window.crowd else each.wait.max(axis=1).sum())
            count += times * float((self.orbits.ranks[each.sender] * each.times).sum())
        return StepTotals(loads[:-1], chain, waits, round(count))

    def window(self, low: int) -> Window:
        """The table of steps from ``low`` on, within one round."""
        for window in self._windows:
            if window.low <= low < window.high:
                return window
        number = int(np.searchsorted(self.ends, low, side="right"))
        each, first = self.rounds[number], low - int(self.starts[number])
        if each.everyone:
            return Window(low, self.crowds[low], np.zeros((1, 0), dtype=np.int64), low + 1, self.nowhere, crowd=True)
        count = each.steps - first
        most = count if each.pattern.repeats else max(1, WINDOW // self.ranks)
        return self._table(number, first, min(count, most))

    def keep(self) -> bool:
        """Make the tables of all steps at once and keep them, unless they are too large; returns whether they are there."""
        sizes = [1 if each.pattern.repeats else each.steps for each in self.rounds if not each.everyone]
        if self.ranks * sum(sizes) > KEPT:
            return False
        self._windows = [self._table(n, 0, each.steps) for n, each in enumerate(self.rounds) if not each.everyone]
        return True

    def without(self, links: NDArray[np.bool_]) -> MessageSteps:
        """The same steps, whose tables are kept, on a network without some orbits of links."""
        fewer = copy(self)
        number = np.append(np.where(links, self.nowhere, np.arange(self.nowhere)), self.nowhere)
        kept = [number[window.messages.links] for window in self._windows]
        hops = np.flatnonzero(np.any([(each != self.nowhere).any(axis=(0, 1)) for each in kept], axis=0))
        fewer._windows = [window.on(each, hops) for window, each in zip(self._windows, kept, strict=True)]
        return fewer

    @property
    def tables(self) -> list[Window]:
        """The tables that are kept."""
        return self._windows

    def _table(self, number: int, first: int, count: int) -> Window:
        """The table of ``count`` steps of a round; those of a round that repeats are one row."""
        rows = 1 if self.rounds[number].pattern.repeats else count
        target, source, nbytes = self._sends(number, first, rows)
        sends = target >= 0
        sender = np.broadcast_to(np.arange(self.ranks), target.shape)
        way = np.where((source >= 0) & sends, BOTH, ONE)
        if sends.all():
            ends = self.orbits.first[sender.reshape(-1)], target.reshape(-1)
            flat = self._messages(*ends, nbytes.reshape(-1), way.reshape(-1))
            messages = Sends(*(values.reshape(*target.shape, *values.shape[1:]) for values in vars(flat).values()))
        else:
            flat = self._messages(self.orbits.first[sender[sends]], target[sends], nbytes[sends], way[sends])
            messages = _spread(flat, sends, self.nowhere)
        low = int(self.starts[number]) + first
        return Window(low, messages, source, low + count, self.nowhere)

    def _sends(self, number: int, first: int, count: int) -> tuple[Index, Index, Array]:
        """Target rank and orbit of the source (or -1), and bytes, ``[count, orbits]``."""
        each = self.rounds[number]
        place, size, base, stride = self._scope(each.scope)
        steps = np.arange(first, first + count)[:, None]
        to, of = each.pattern.targets(place, size, steps), each.pattern.sources(place, size, steps)
        target = np.where(to >= 0, self.groups[self.group, base + stride * to], -1)
        source = np.where(of >= 0, self.orbits.rank[self.groups[self.group, base + stride * of]], -1)
        shape = (count, self.ranks)
        target, source = np.broadcast_to(target, shape), np.broadcast_to(source, shape)
        return target, source, self._weighed(self._nbytes(number, target, size), self.orbits.first, target)

    def _weighed(self, nbytes: Array, source: Index, target: Index) -> Array:
        """What the bytes of messages weigh on links."""
        return nbytes if self.factors is None else nbytes * self.factors.of(source, target, self.graph.layout.node)

    def _scope(self, scope: str) -> tuple[Index, int, Index, int]:
        """(place in the scope, size of the scope, position of its first member, distance of members) of each orbit's rank."""
        if scope == "inner":
            return self.position % self.inner, self.inner, self.position // self.inner * self.inner, 1
        if scope == "outer":
            return (
                self.position // self.inner,
                self.groups.shape[1] // self.inner,
                self.position % self.inner,
                self.inner,
            )
        return self.position, self.groups.shape[1], np.zeros_like(self.position), 1

    def _nbytes(self, number: int, target: Index, size: int) -> Array:
        """Bytes of messages ``[..., orbits]`` to target ranks."""
        each, payload = self.rounds[number], self.payloads[number]
        sent, share = payload.sent[self.orbits.first], payload.share
        if payload.pairs is not None:
            return payload.pairs[self.orbits.first[None, :], target]
        if share is None:
            return np.broadcast_to(sent * (each.share / (size if each.everyone else 1)), target.shape)
        return sent * share[target]

    def _everyone(self, number: int) -> Sends:
        """The messages of a round in which every rank sends to every other one of its scope, those that are alike as one."""
        place, size, base, stride = self._scope(self.rounds[number].scope)
        other = (place[:, None] + np.arange(1, size)) % size
        target = self.groups[self.group[:, None], base[:, None] + stride * other]
        nbytes = self._nbytes(number, target.T, size).T.reshape(-1)
        if self.factors is not None:
            nbytes = nbytes * np.repeat(
                self.factors.of_all(self.orbits.first, target, self.graph.layout.node), size - 1
            )
        sender = np.repeat(np.arange(self.ranks), size - 1)
        flat = self._messages(self.orbits.first[sender], target.reshape(-1), nbytes)
        colour = alike(flat.sender, flat.receiver, flat.nbytes, flat.wait, flat.limit, *flat.links.T)
        _, first, times = np.unique(colour, return_index=True, return_counts=True)
        one = flat[first]
        one = replace(one, usage=one.usage * times[:, None], times=times.astype(np.float64))
        return self._posting(one, size - 1) if self.overhead else one

    def merged(self, source: Index, target: Index, times: Array) -> Sends:
        """Messages of the first round from rank to rank, each for ``times`` alike, without the interfaces that they leave by."""
        share = self.payloads[0].share
        part = np.ones(len(target)) if share is None else share[target]
        found = self._messages(source, target, self.payloads[0].sent[source] * part)
        nbytes = found.nbytes if self.factors is None else found.nbytes * self.factors.far
        return replace(
            found, nbytes=nbytes, links=found.links[:, 1:], usage=found.usage[:, 1:] * times[:, None], times=times
        )

    def _posting(self, messages: Sends, count: int) -> Sends:
        """With what keeps a rank from being through before its processor has posted all its messages, one after another."""
        longest = np.zeros(self.ranks)
        np.maximum.at(longest, messages.sender, messages.wait)
        last = longest + (count - 1) * self.overhead
        ranks, nothing = np.arange(self.ranks), np.zeros(self.ranks)
        nowhere = np.full((self.ranks, messages.links.shape[1]), self.nowhere)
        posts = Sends(
            ranks, ranks, nowhere, np.zeros(nowhere.shape), last, nothing, nothing + 1.0, nothing + np.inf, nothing
        )
        return Sends(
            *(np.concatenate(pair) for pair in zip(vars(messages).values(), vars(posts).values(), strict=True))
        )

    def _messages(self, source: Index, target: Index, nbytes: Array, way: Index | int = BOTH) -> Sends:
        """Messages from rank to rank, as the links and their orbits see them; what they cost beside goes by their ``way``."""
        graph, orbits, model = self.graph, self.orbits, self.model
        there = graph.routes(source, target)
        latency = graph.latencies(source, target)
        links = np.hstack([there, graph.routes(target, source)]) if model.reverse else there
        orbit, sender = np.append(orbits.link, self.nowhere)[links], orbits.rank[source]
        # Of all messages that are alike, how many are on one link; orbits of ranks are mostly of one size.
        largest = float(orbits.ranks.max())
        usage = np.append(largest / orbits.links, 0.0)[orbit]
        if (orbits.ranks != largest).any():
            usage *= orbits.ranks[sender][:, None] / largest
        usage[:, there.shape[1] :] *= model.reverse
        seconds, slowest = np.zeros(len(source)), np.full(len(source), np.inf)
        for hop in there.T:
            np.minimum(slowest, self._bandwidth[hop], out=slowest)
            if model.by_bandwidth:
                seconds += self._a_byte[hop]
        wait, rate = self.overhead + latency * model.latency_factor, np.full(len(source), np.inf)
        if self.costs.measured:
            node = graph.layout.node
            wait, rate = self.costs.start(node[source], node[target], nbytes, way)
        if self.costs.burst:  # links that have been idle are faster than their own rate
            slowest[:] = np.inf
        return Sends(
            sender=sender,
            receiver=orbits.rank[target],
            links=orbit,
            usage=usage,
            wait=wait,
            nbytes=nbytes,
            weight=model.weights(latency, seconds),
            limit=np.minimum(slowest, rate),
            times=np.ones(len(source)),
        )


@dataclass(frozen=True)
class Window:
    """Steps ``low`` to before ``high`` of a collective, all of one round.

    Either ``messages[step, orbit]`` (``receiver`` -1 where nothing is sent) and ``source[step, orbit]``, the orbit whose message
    comes (or -1), in a single row where the round repeats; or, in a ``crowd``, one step with a flat list of messages,
    in which every rank sends to every other.
    """

    low: int
    messages: Sends
    source: Index
    high: int
    nowhere: int
    crowd: bool = False

    @cached_property
    def flat(self) -> Sends:
        """All messages in one row, step after step."""
        count = self.messages.wait.size
        return Sends(
            *(each.reshape(count, *each.shape[self.messages.wait.ndim :]) for each in vars(self.messages).values())
        )

    @cached_property
    def alone(self) -> NDArray[np.bool_]:
        """Which of the messages in one row are on no link, ``[messages]``."""
        return np.asarray((self.flat.links == self.nowhere).all(axis=1))

    @cached_property
    def seconds(self) -> Array:
        """Seconds of each message in one row that nothing holds back."""
        return self.flat.wait + self.flat.nbytes / self.flat.limit

    def row(self, step: Index | int) -> Index | int:
        """The row of a step."""
        return (step - self.low) % len(self.source)

    def on(self, links: Index, hops: Index) -> Window:
        """The same steps on other links, of which only some hops count."""
        fewer = replace(self.messages, links=links[..., hops], usage=self.messages.usage[..., hops])
        return replace(self, messages=fewer)

    def key(self, step: int) -> int:
        """A fingerprint of the messages of a step, whoever sends them."""
        return self._keys[self.row(step)]

    @cached_property
    def _keys(self) -> list[int]:
        return [int(key) for key in fingerprints(self.messages)]


def fingerprints(messages: Sends) -> NDArray[np.uint64]:
    """A fingerprint of the messages in the last dimension, whoever sends them and in whatever order."""
    each = messages
    columns = [each.nbytes, each.wait, each.limit, each.weight, each.times, *np.moveaxis(each.links, -1, 0)]
    mixed = np.zeros(messages.wait.shape, dtype=np.uint64)
    for column in columns:
        mixed = scattered(mixed * np.uint64(31) + np.ascontiguousarray(column).view(np.uint64))
    return np.asarray(mixed.sum(axis=-1, dtype=np.uint64))


def _spread(flat: Sends, at: NDArray[np.bool_], nowhere: int) -> Sends:
    """Messages in a table, where ``at`` says that there is one."""
    blank = Sends(-1, -1, nowhere, 0.0, 0.0, 0.0, 1.0, np.inf, 0.0)  # type: ignore[arg-type]
    columns = []
    for values, empty in zip(vars(flat).values(), vars(blank).values(), strict=True):
        table = np.full((*at.shape, *values.shape[1:]), empty, dtype=values.dtype)
        table[at] = values
        columns.append(table)
    return Sends(*columns)
