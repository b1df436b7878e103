"""What a phase of communication asks of the network: flow classes on link classes, and what their end means for its groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..fluid import fill
from ..links import Array, LinkLoads
from ..maxmin import fair_rates, hops

Classes = NDArray[np.int64]

AT_ONCE = 1 << 20
"""Flow classes times link classes of phases that are played together."""

SPENT = 1e-12
"""Share of a flow's bytes below which what is left is rounding."""


@dataclass(frozen=True)
class Demand:
    """Flows that all groups of an operation start together.

    One class stands for all flows that are alike, one link class for all links that are alike. ``usage[f, l]`` flows
    of class f cross each link of class l; each has ``nbytes[f]`` bytes. ``link_class()`` gives the class of every link
    of the machine (numbered over all kinds), -1 where the phase does not use it: it is asked for only where two phases
    meet.

    A group is done when the slowest of its flow classes is: ``members[kind, class]`` says which these are,
    ``kind[group]`` of which kind a group is (None: all groups alike), and ``scale[group]`` what share of the phase's
    time a group takes (bound depth). ``apart`` says that no link which groups share can hold any of them back, whenever each of
    them begins.
    """

    nbytes: Array
    usage: Array
    capacity: Array
    weight: Array
    names: tuple[str, ...]
    link_class: Callable[[], Classes]
    members: NDArray[np.bool_]
    kind: Classes | None
    scale: float | Array
    apart: bool = False

    def scaled(self, factor: float) -> Demand:
        """The same flows with ``factor`` times the bytes."""
        return replace(self, nbytes=self.nbytes * factor)

    def group_seconds(self, finish: Array) -> float | Array:
        """Seconds of each group (a float where all are alike) from those of the flow classes."""
        worst = np.where(self.members, finish, 0.0).max(axis=1)
        if self.kind is None or (worst == worst[0]).all():
            return float(worst[0]) * self.scale
        seconds: Array = worst[self.kind] * self.scale
        return seconds

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
        left, finish, now, last = self.nbytes.astype(np.float64), np.zeros(len(self.nbytes)), 0.0, "none"
        while (left > 0).any():
            active = left > 0
            rates = fair_rates(self.usage[active], self.capacity, self.weight[active])
            needed = left[active] / rates
            step = needed.min()
            if now + step > until:
                left[active] -= rates * (until - now)
                over = active & (left <= self.nbytes * SPENT)  # what ends at this very moment
                left[over], finish[over] = 0.0, until
                break
            done = np.flatnonzero(active)[needed <= step * (1 + 1e-12)]
            last = self._tightest(active, rates, done)
            now += step
            left[active] = np.maximum(left[active] - rates * step, 0.0)
            left[done], finish[done] = 0.0, now
        return finish, left, last

    def _tightest(self, active: NDArray[np.bool_], rates: Array, done: Classes) -> str:
        """The fullest kind of link on the way of the flows that end now."""
        used = rates @ self.usage[active] / self.capacity
        on_route = (self.usage[done] > 0).any(axis=0)
        return self.names[int(np.where(on_route, used, -1.0).argmax())]


@dataclass(frozen=True)
class Alone:
    """Several phases of the same groups, each with the network to itself.

    ``ends[phase, group]`` are seconds (one column where all groups are alike), ``loads`` the bytes of each phase along a first
    axis. ``apart[phase]`` says that no link which groups share can hold any of them back.
    """

    ends: Array
    loads: LinkLoads
    apart: NDArray[np.bool_]


def alone_at_once(demand: Demand, nbytes: Array) -> Array:
    """:attr:`Demand.alone` of each of several phases, ``[phase, group]``, that differ in ``nbytes[phase, flow class]`` alone.

    They are played as phases on networks of their own, all in one go: what a phase does changes nothing for the others.
    """
    most = max(1, AT_ONCE // max(1, demand.usage.size))
    finish = np.concatenate([_finish(demand, nbytes[at : at + most]) for at in range(0, len(nbytes), most)])
    worst = np.where(demand.members, finish[:, None, :], 0.0).max(axis=2)
    ends: Array = worst if demand.kind is None else worst[:, demand.kind]
    return np.asarray(ends * demand.scale)


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


def bound_demand(
    loads: LinkLoads, group_ends: Array | None, apart: NDArray[np.bool_] | None = None, free: bool = False
) -> Demand:
    """The phase as a single flow that fills its links in proportion to their bytes: done when the most loaded link is.

    ``group_ends`` are the seconds after which the links of each group are done, where they differ. Links that are looked at
    ``apart``, of all kinds, carry what they carry; of each kind's others the most loaded one stands for all. ``free``: no link
    that groups share holds any of them back.
    """
    if apart is not None:
        return _bound_apart(loads, group_ends, apart)
    busy = [(kind, seconds) for kind, seconds in loads.busy()]
    longest = [float(seconds.max()) for _, seconds in busy]
    used = np.array([kind.capacity for kind, _ in busy]) * np.array(longest)
    whole = max(longest, default=0.0)

    def link_class() -> Classes:
        columns = {kind.name: np.where(seconds > 0, number, -1) for number, (kind, seconds) in enumerate(busy)}
        parts = [columns.get(kind.name, np.full(kind.count, -1)) for kind in loads.kinds]
        return np.concatenate(parts)

    return Demand(
        nbytes=np.array([1.0 if whole else 0.0]),
        usage=used[None, :],
        capacity=np.array([kind.capacity for kind, _ in busy]),
        weight=np.array([1.0 / whole if whole else 1.0]),
        names=tuple(kind.name for kind, _ in busy),
        link_class=link_class,
        members=np.ones((1, 1), dtype=bool),
        kind=None,
        scale=1.0 if group_ends is None else group_ends / whole,
        apart=free,
    )


def _bound_apart(loads: LinkLoads, group_ends: Array | None, apart: NDArray[np.bool_]) -> Demand:
    """The same with a class for each loaded link that is looked at apart, and one for all others of its kind."""
    carried = [loads.loads.get(kind.name, np.zeros(kind.count)) for kind in loads.kinds]
    link_class = np.full(len(apart), -1, dtype=np.int64)
    usage: list[float] = []
    capacity: list[float] = []
    names: list[str] = []
    start = 0
    for kind, nbytes in zip(loads.kinds, carried, strict=True):
        here, own = apart[start : start + kind.count], link_class[start : start + kind.count]
        single, rest = np.flatnonzero(here & (nbytes > 0)), ~here & (nbytes > 0)
        own[single] = len(usage) + np.arange(len(single))
        usage += list(nbytes[single])
        if rest.any():
            own[rest] = len(usage)
            usage.append(float(nbytes[rest].max()))
        capacity += [kind.capacity] * (len(usage) - len(capacity))
        names += [kind.name] * (len(usage) - len(names))
        start += kind.count
    used, rates = np.array(usage), np.array(capacity)
    whole = float((used / rates).max(initial=0.0))
    return Demand(
        nbytes=np.array([1.0 if whole else 0.0]),
        usage=used[None, :],
        capacity=rates,
        weight=np.array([1.0 / whole if whole else 1.0]),
        names=tuple(names),
        link_class=lambda: link_class,
        members=np.ones((1, 1), dtype=bool),
        kind=None,
        scale=1.0 if group_ends is None else group_ends / whole,
    )
