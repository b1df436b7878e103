"""What a phase of communication asks of the network: flow classes on link classes, and what their end means for its groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..fluid import fill
from ..links import Array, LinkLoads
from ..maxmin import hops

Classes = NDArray[np.int64]

AT_ONCE = 1 << 20
"""Flow classes times link classes of phases that are played together."""

SPENT = 1e-12
"""Share of a flow's bytes below which what is left is rounding."""


@dataclass(frozen=True)
class ClassEnds:
    """A group is done when the last of its messages is.

    ``members[kind, class]`` says of which flow classes they are, ``kind[group]`` of which kind a group is (None: all groups
    alike), ``latency[class]`` the seconds of an empty message.
    """

    members: NDArray[np.bool_]
    kind: Classes | None
    latency: Array

    def seconds(self, finish: Array, times: float, overhead: float) -> float | Array:
        """Seconds of each group, a float where all are alike."""
        return self._of_groups(np.where(self.members, finish + times * (self.latency + overhead), 0.0).max(axis=1))

    @cached_property
    def longest(self) -> float | Array:
        """The longest latency of each group."""
        return self._of_groups(np.where(self.members, self.latency, 0.0).max(axis=1))

    def _of_groups(self, worst: Array) -> float | Array:
        if self.kind is None or (worst == worst[0]).all():
            return float(worst[0])
        found: Array = worst[self.kind]
        return found


@dataclass(frozen=True)
class LinkEnds:
    """A group is done when the most loaded link of each of its messages is.

    Messages with one latency are a row: ``share[row, group]`` of the whole phase's seconds do they take, and
    ``latency[row, group]`` is that of each; groups are one where all are alike.
    """

    share: Array
    latency: Array

    def seconds(self, finish: Array, times: float, overhead: float) -> float | Array:
        """Seconds of each group, a float where all are alike."""
        return _single((finish[0] * self.share + times * (self.latency + overhead)).max(axis=0))

    @cached_property
    def longest(self) -> float | Array:
        """The longest latency of each group."""
        return _single(self.latency.max(axis=0))


def _single(values: Array) -> float | Array:
    """One number where all are equal."""
    return float(values[0]) if (values == values[0]).all() else values


@dataclass(frozen=True)
class Demand:
    """Flows that all groups of an operation start together.

    One class stands for all flows that are alike, one link class for all links that are alike. ``usage[f, l]`` flows
    of class f cross each link of class l; each has ``nbytes[f]`` bytes. ``link_class()`` gives the class of every link
    of the machine (numbered over all kinds), -1 where the phase does not use it: it is asked for only where two phases
    meet.

    ``ends`` says when a group is done, given when the classes are. ``apart`` says that no link which groups share can hold any
    of them back, whenever each of them begins.
    """

    nbytes: Array
    usage: Array
    capacity: Array
    weight: Array
    names: tuple[str, ...]
    link_class: Callable[[], Classes]
    ends: ClassEnds | LinkEnds
    apart: bool = False

    def scaled(self, factor: float) -> Demand:
        """The same flows with ``factor`` times the bytes."""
        return replace(self, nbytes=self.nbytes * factor)

    def group_seconds(self, finish: Array, times: float = 0.0, overhead: float = 0.0) -> float | Array:
        """Seconds of each group (a float where all are alike) from those of the flow classes.

        A message's bytes come ``times`` its latency and ``overhead`` later than its flow begins.
        """
        return self.ends.seconds(finish, times, overhead)

    @cached_property
    def alone(self) -> tuple[Array, str]:
        """Seconds of each flow class with the network to itself, and the kind of link that holds the slowest one back."""
        finish, _, last = self._play(np.inf)
        return finish, last

    def after(self, seconds: float) -> tuple[Array, Array]:
        """With the network to itself: when each flow class ended (0 where it has not), and the bytes that each has left."""
        finish, left, _ = self._play(seconds)
        return finish, left

    def _play(self, until: float) -> tuple[Array, Array, str]:
        """Let the flows run for some time: (end of each class, bytes left, tightest link of the last one that ended)."""
        left, finish, now, last = self.nbytes.astype(np.float64), np.zeros(len(self.nbytes)), 0.0, None
        table, claims = hops(self.usage, self.weight)
        capacity, endless = np.append(self.capacity, np.inf), np.full(len(self.nbytes), np.inf)
        while (active := left > 0).any():
            some = self.weight[active], table[:, active], claims[:, active], endless[active]
            rates = some[0] * fill(*some[1:], capacity)
            needed = left[active] / rates
            step = needed.min()
            if now + step > until:
                left[active] -= rates * (until - now)
                over = active & (left <= self.nbytes * SPENT)  # what ends at this very moment
                left[over], finish[over] = 0.0, until
                break
            done = np.flatnonzero(active)[needed <= step * (1 + 1e-12)]
            last = active, rates, done
            now += step
            left[active] = np.maximum(left[active] - rates * step, 0.0)
            left[done], finish[done] = 0.0, now
        return finish, left, self._tightest(*last) if last else "none"

    def _tightest(self, active: NDArray[np.bool_], rates: Array, done: Classes) -> str:
        """The fullest kind of link on the way of the flows that end now."""
        used = rates @ self.usage[active] / self.capacity
        on_route = (self.usage[done] > 0).any(axis=0)
        return self.names[int(np.where(on_route, used, -1.0).argmax())]


@dataclass(frozen=True)
class Alone:
    """Several phases of the same groups, each with the network to itself.

    ``ends[phase, group]`` are seconds (one column where all groups are alike), latencies and a message's overhead included;
    ``longest`` is each group's longest latency; ``loads`` are the bytes of each phase along a first axis. ``apart[phase]`` says
    that no link which groups share can hold any of them back.
    """

    ends: Array
    longest: Array | float
    loads: LinkLoads
    apart: NDArray[np.bool_]


def alone_at_once(demand: Demand, nbytes: Array, overhead: float) -> Array:
    """Seconds of groups, ``[phase, group]``, in several phases that differ in ``nbytes[phase, flow class]`` alone.

    They are played as phases on networks of their own, all in one go: what a phase does changes nothing for the others.
    """
    most = max(1, AT_ONCE // max(1, demand.usage.size))
    finish = np.concatenate([_finish(demand, nbytes[at : at + most]) for at in range(0, len(nbytes), most)])
    ends = demand.ends
    assert isinstance(ends, ClassEnds)
    worst = np.where(ends.members, (finish + ends.latency + overhead)[:, None, :], 0.0).max(axis=2)
    found: Array = worst if ends.kind is None else worst[:, ends.kind]
    return found


def _finish(demand: Demand, nbytes: Array) -> Array:
    """Seconds of each flow class, ``[phase, flow class]``."""
    table, claims = hops(demand.usage, demand.weight)
    count, nowhere = len(demand.capacity), len(nbytes) * len(demand.capacity)
    capacity = np.append(np.tile(demand.capacity, len(nbytes)), np.inf)
    left, finish, now = nbytes.astype(np.float64), np.zeros(nbytes.shape), np.zeros(len(nbytes))
    while (active := left > 0).any():
        phase, flow = np.nonzero(active)
        links = np.where(table[:, flow] < count, table[:, flow] + phase * count, nowhere)
        rate = demand.weight[flow] * fill(links, claims[:, flow], np.full(len(flow), np.inf), capacity)
        needed = np.full(left.shape, np.inf)
        needed[active] = left[active] / rate
        step = needed.min(axis=1)
        going = step < np.inf
        now[going] += step[going]
        left[active] = np.maximum(left[active] - rate * step[phase], 0.0)
        done = active & (needed <= step[:, None] * (1 + 1e-12))
        left[done] = 0.0
        finish[done] = np.broadcast_to(now[:, None], done.shape)[done]
    return finish


def busy_link_demand(
    loads: LinkLoads, ends: Array, latency: Array, apart: NDArray[np.bool_] | None = None, free: bool = False
) -> Demand:
    """The phase as a single flow that fills its links in proportion to their bytes: done when the most loaded link is.

    ``ends[row, group]`` are the seconds after which the links of each group's messages are done, those with one
    ``latency[row, group]`` in a row. Links that are looked at ``apart``, of all kinds, carry what they carry; of each kind's
    others the most loaded one stands for all. ``free``: no link that groups share holds any of them back.
    """
    used, rates, names = _busiest(loads, apart)
    whole = float((used / rates).max(initial=0.0))
    if (ends == ends[:, :1]).all() and (latency == latency[:, :1]).all():
        ends, latency = ends[:, :1], latency[:, :1]
    return Demand(
        nbytes=np.array([1.0 if whole else 0.0]),
        usage=used[None, :],
        capacity=rates,
        weight=np.array([1.0 / whole if whole else 1.0]),
        names=names,
        link_class=lambda: _classes_of_links(loads, apart),
        ends=LinkEnds(ends / whole if whole else ends, np.broadcast_to(latency, ends.shape)),
        apart=free,
    )


def returning(demand: Demand, loads: LinkLoads, apart: NDArray[np.bool_] | None) -> Demand:
    """The demand of a phase with these loads in which all groups take as long as in another one of single links."""
    ends, whole = demand.ends, float((demand.usage[0] / demand.capacity).max(initial=0.0))
    assert isinstance(ends, LinkEnds)
    return busy_link_demand(loads, ends.share * (whole or 1.0), ends.latency, apart, demand.apart)


def _busiest(loads: LinkLoads, apart: NDArray[np.bool_] | None) -> tuple[Array, Array, tuple[str, ...]]:
    """(bytes, capacity, kind) of each class of links, in the order of :func:`_classes_of_links`."""
    found: list[tuple[float, float, str]] = []
    ends = dict(zip((kind.name for kind in loads.kinds), np.cumsum([kind.count for kind in loads.kinds]), strict=True))
    for kind, seconds in loads.busy():
        rest = seconds
        if apart is not None:
            here = apart[ends[kind.name] - kind.count : ends[kind.name]]
            single = seconds[here & (seconds > 0)] * kind.capacity
            found += [(nbytes, kind.capacity, kind.name) for nbytes in single.tolist()]
            rest = seconds[~here]
        if (most := float(rest.max(initial=0.0))) > 0:
            found.append((most * kind.capacity, kind.capacity, kind.name))
    used, rates, names = zip(*found, strict=True) if found else ((), (), ())
    return np.array(used, dtype=np.float64), np.array(rates, dtype=np.float64), names


def _classes_of_links(loads: LinkLoads, apart: NDArray[np.bool_] | None) -> Classes:
    """The class of every link, of all kinds; -1 where nothing passes."""
    parts: list[Classes] = []
    classes, start = 0, 0
    for kind in loads.kinds:
        own = np.full(kind.count, -1, dtype=np.int64)
        used = loads.loads[kind.name] > 0 if kind.name in loads.loads else np.zeros(kind.count, dtype=bool)
        here = used & (np.zeros(kind.count, dtype=bool) if apart is None else apart[start : start + kind.count])
        single = np.flatnonzero(here)
        own[single] = classes + np.arange(len(single))
        classes += len(single)
        if (rest := used & ~here).any():
            own[rest] = classes
            classes += 1
        parts.append(own)
        start += kind.count
    return np.concatenate(parts)


def by_latency(latency: Array, ends: Array, group: Classes, groups: int) -> tuple[Array, Array]:
    """(ends, latencies) ``[row, group]`` of messages, a row for each latency that occurs, given ``ends[message]``."""
    distinct = _distinct(latency)
    found, there = np.zeros((len(distinct), groups)), np.zeros((len(distinct), groups), dtype=bool)
    first = np.flatnonzero(np.diff(group, prepend=-1)) if len(group) and (np.diff(group) >= 0).all() else None
    for number, value in enumerate(distinct):
        of_row = slice(None) if len(distinct) == 1 else latency == value
        if first is None:
            np.maximum.at(found[number], group[of_row], ends[of_row])
            there[number, group[of_row]] = True
        else:  # messages of a group stand next to each other
            here = np.ones(len(group), dtype=np.bool_) if len(distinct) == 1 else np.asarray(of_row)
            found[number, group[first]] = np.maximum.reduceat(np.where(here, ends, 0.0), first)
            there[number, group[first]] = np.logical_or.reduceat(here, first)
    return found, np.where(there, distinct[:, None], 0.0)


FEW = 8
"""Distinct numbers up to which looking for the next larger one is faster than sorting all."""


def _distinct(values: Array) -> Array:
    """The distinct ones of many numbers, rising: mostly a few."""
    found = list[float]()
    left = values
    while len(left) and len(found) < FEW:
        found.append(float(left.min()))
        left = left[left > found[-1]]
    return np.array(found) if not len(left) else np.unique(values)
