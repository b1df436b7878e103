"""What an exchange asks of the network: a transfer, one of several exchanges at once, and what its messages cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..links import Array, Index, LinkLoads
from .flow_classes import Demand, LinkEnds, returning
from .flow_symmetry import Marks
from .kept_exchanges import the_other_way


@dataclass(frozen=True, eq=False)
class Transfer:
    """Equal steps of a collective, in a row, as the network and the ranks' processors see them.

    The demand counts the bytes of all ``times`` steps. On every link these are ``factor`` times ``loads``, which many
    transfers then share, or ``loads`` as they are where ``factor`` is None. Each step anew, a message's bytes come after
    its latency and its ``overhead``; the overheads of ``further`` messages run beside the transfer.
    """

    demand: Demand
    loads: LinkLoads
    factor: float | None
    times: int
    overhead: float
    further: int
    posted: MessageTimes | None = None

    @property
    def fixed(self) -> float | Array:
        """Seconds of each group's longest message without bytes, in all steps."""
        if self.posted and self.posted.start is not None:
            return self.times * self.posted.start
        return self.times * (self.demand.ends.longest + self.overhead)

    @property
    def floor(self) -> float:
        """Seconds that the overheads of all further messages take."""
        return self.further * self.overhead * self.times

    def lines(self, nbytes: float) -> tuple[Array, Array]:
        """Seconds without bytes, and for each byte, of groups' messages where only loads of links count; of ``nbytes``."""
        ends, whole = self.demand.ends, float(self.demand.alone[0].max())
        assert isinstance(ends, LinkEnds)
        fixed, each = self.times * (ends.latency + self.overhead), ends.share * whole / nbytes
        if self.posted and self.posted.start is not None:
            fixed = np.full_like(fixed, self.times * self.posted.start)
        return fixed.reshape(-1), each.reshape(-1)

    def group_seconds(self, finish: Array) -> tuple[float | Array, str]:
        """Seconds of each group, given those of its flow classes, and what decides them: a kind of link, or messages."""
        fixed, floor = self.fixed, self.floor
        seconds = self.demand.group_seconds(finish, self.times, self.overhead)
        if self.posted:
            wire = self.demand.group_seconds(finish)
            seconds = fixed + self.posted.passing(wire, fixed / self.times, self.times)
        by_messages = float(finish.max(initial=0.0)) < floor + np.max(fixed)
        if floor:
            seconds = np.maximum(seconds, fixed + floor)
        return seconds, "messages" if by_messages else self.demand.alone[1]

    def returning(self, apart: Marks | None) -> Transfer:
        """The transfer that brings back what this one takes, on a tree whose links are looked at one by one."""
        loads = the_other_way(self.loads)
        return replace(self, demand=returning(self.demand, loads, apart), loads=loads)


@dataclass(frozen=True)
class MessageTimes:
    """What a machine's table and its links' buckets say of the messages of a step.

    The first byte of each goes after ``start`` seconds (None: after latency and overhead), processors need ``least`` seconds to
    hand its bytes on, and links that were idle carry what comes to them in the first ``burst`` seconds at once. Before the
    ``first`` step of an exchange they have been idle, before others while messages started.
    """

    start: float | None
    least: float
    burst: float
    first: bool

    def passing(self, wire: float | Array, start: float | Array, times: int) -> float | Array:
        """Seconds that bytes need in all steps, of which links need ``wire``."""
        hidden = times * np.minimum(self.burst, start)
        if self.first:
            hidden = hidden + np.maximum(self.burst - start, 0.0)
        found = np.maximum(wire - hidden, times * self.least)
        return found if isinstance(wire, np.ndarray) or isinstance(start, np.ndarray) else float(found)


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the groups along axes, ``rows`` of :meth:`Layout.groups`, whose messages begin together.

    Links that they share with others that begin at other times are looked at ``apart``.
    """

    axes: tuple[str, ...]
    rows: Index
    apart: Marks


@dataclass(frozen=True, eq=False)
class AtOnce:
    """A transfer of several exchanges of the same groups, each with the network to itself.

    ``seconds[exchange, group]``, bytes on links with the exchanges along a first axis, and of which of them groups share no link
    that could hold them back.
    """

    seconds: Array
    loads: LinkLoads
    apart: NDArray[np.bool_]

    def of(self, number: int) -> AtOnce:
        """That of one exchange, with the first axis still."""
        here = slice(number, number + 1)
        loads = LinkLoads(self.loads.kinds, {kind: each[here] for kind, each in self.loads.loads.items()})
        return AtOnce(self.seconds[here], loads, self.apart[here])

    @classmethod
    def joined(cls, several: Sequence[AtOnce]) -> AtOnce:
        """One after another, along the first axis."""
        first, found = several[0].loads, dict[str, Array]()
        for kind in dict.fromkeys(name for each in several for name in each.loads.loads):
            some = next(each.loads.loads[kind] for each in several if kind in each.loads.loads)
            nothing = np.zeros((1, some.shape[1]))
            found[kind] = np.concatenate([each.loads.loads.get(kind, nothing) for each in several])
        groups = max(each.seconds.shape[1] for each in several)
        seconds = [np.broadcast_to(each.seconds, (1, groups)) for each in several]
        return cls(np.concatenate(seconds), LinkLoads(first.kinds, found), np.concatenate([e.apart for e in several]))

    def returning(self) -> AtOnce:
        """The transfer that brings back what this one takes (:meth:`Transfer.returning`)."""
        return replace(self, loads=the_other_way(self.loads))
