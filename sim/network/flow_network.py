"""The network where phases begin and end at any time: flow classes of all of them on the links that they share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import simpy

from ...hardware.fabrics.fabric import LinkKind
from .fluid import Fluid
from .links import Array, Index
from .phases.flow_classes import Demand
from .phases.flow_symmetry import Marks


@dataclass(eq=False)
class _Sent:
    """A demand under way: when each of its flow classes ended, and how many have not."""

    done: simpy.Event
    started: float
    finish: Array
    left: int


@dataclass(frozen=True)
class _Table:
    """The links of flow classes, ``[flow, hop]``, and what each takes of them; ``usage`` is the demand's that this is of."""

    usage: Array
    flows: Index
    links: Index
    claims: Array


class FlowNetwork:
    """Carries demands, as :class:`~athanor.sim.network.shared_network.SharedNetwork` does, many at once at little cost.

    Links that are ``shared`` stand for themselves. Of all others a demand uses as one class, one stands for its class, since
    nobody else uses them meanwhile. So nothing has to be worked out for those that happen to be under way together.
    """

    def __init__(self, env: simpy.Environment, kinds: tuple[LinkKind, ...], shared: Marks) -> None:
        self.env = env
        capacity = np.repeat([kind.capacity for kind in kinds], [kind.count for kind in kinds])
        self._shared = shared
        self._fluid = Fluid(0, 0, np.append(capacity, np.inf))
        self._free: list[int] = []
        self._owner: list[tuple[_Sent, int]] = []
        self._tables: dict[int, _Table | None] = {}
        self._kept: list[Array] = []  # of which the numbers are keys of tables
        self._unsettled, self._version = False, 0

    def carry(self, demand: Demand, repeats: bool) -> Generator[simpy.Event, Array, Array]:
        """Carry a demand; returns the seconds of each flow class from now on. Tables of demands that repeat are kept."""
        table = self._table(demand, repeats)
        if table is None:
            alone = demand.alone[0]
            if (longest := float(alone.max(initial=0.0))) > 0:
                yield self.env.timeout(longest)
            return alone
        finish = np.zeros(len(demand.nbytes))
        moving = np.flatnonzero(demand.nbytes[table.flows] > 0)
        flows = table.flows[moving]
        if len(flows):
            self._end(self._fluid.advance(max(self.env.now, self._fluid.now)))
            sent = _Sent(self.env.event(), self.env.now, finish, len(flows))
            slots = self._take(len(flows), table.links.shape[1])
            for slot, flow in zip(slots, flows, strict=True):
                self._owner[slot] = (sent, int(flow))
            none = np.full(len(flows), np.inf)
            self._fluid.book(
                slots, table.links[moving], table.claims[moving], demand.weight[flows], none, demand.nbytes[flows]
            )
            self._fluid.begin(slots)
            self._settle_soon()
            yield sent.done
        return finish

    def _take(self, count: int, width: int) -> Index:
        """Free slots."""
        if len(self._free) < count or width > self._fluid.links.shape[0]:
            had = len(self._owner)
            wanted = had + max(count, had, 16) if len(self._free) < count else had
            self._fluid.grow(wanted, width)
            self._free += range(had, wanted)
            self._owner += [(_Sent(self.env.event(), 0.0, np.zeros(0), 0), 0)] * (wanted - had)
        taken, self._free = self._free[-count:], self._free[:-count]
        return np.array(taken)

    def _settle_soon(self) -> None:
        """Rates are set once all that begins at this moment has begun."""
        if not self._unsettled:
            self._unsettled = True
            self._call(0.0, self._settle)

    def _settle(self) -> None:
        self._unsettled, self._version = False, self._version + 1
        self._fluid.settle()
        following, version = self._fluid.next(), self._version
        if following < np.inf:
            self._call(max(0.0, following - self.env.now), lambda: self._wake(version))

    def _wake(self, version: int) -> None:
        """The next flow ends, unless rates changed before."""
        if version == self._version and not self._unsettled:
            self._end(self._fluid.advance(max(self.env.now, self._fluid.now)))
            self._settle_soon()

    def _end(self, slots: Index) -> None:
        """Flows have ended."""
        for slot in slots.tolist():
            sent, flow = self._owner[slot]
            sent.finish[flow] = self._fluid.now - sent.started
            sent.left -= 1
            if not sent.left:
                sent.done.succeed()
            self._free.append(slot)
        if len(slots):
            self._settle_soon()

    def _call(self, delay: float, action: Callable[[], None]) -> None:
        timeout = self.env.timeout(delay)
        assert timeout.callbacks is not None
        timeout.callbacks.append(lambda _: action())

    def _table(self, demand: Demand, repeats: bool) -> _Table | None:
        """The links of a demand; None where it shares none."""
        key = id(demand.usage)
        if key in self._tables:
            return self._tables[key]
        made = self._made(demand)
        if repeats:
            self._tables[key] = made
            self._kept.append(demand.usage)
        return made

    def _made(self, demand: Demand) -> _Table | None:
        of_link = demand.link_class()
        own = np.flatnonzero((of_link >= 0) & self._shared)
        if not len(own):
            return None
        others = np.flatnonzero((of_link >= 0) & ~self._shared)
        example = others[np.unique(of_link[others], return_index=True)[1]]
        columns = np.concatenate([own, example])
        usage = demand.usage[:, of_link[columns]]
        flows, places = np.nonzero(usage)
        counts = np.bincount(flows, minlength=len(usage))
        hop = np.arange(len(flows)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (len(usage), int(counts.max(initial=0)))
        links, claims = np.full(shape, len(of_link)), np.zeros(shape)
        links[flows, hop], claims[flows, hop] = columns[places], usage[flows, places]
        used = np.flatnonzero(counts)  # flows on no link take no time
        return _Table(demand.usage, used, links[used], claims[used])
