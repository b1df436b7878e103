"""What every fabric can tell: its links, the way of a message over them, its latency, and whether it is a tree."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from ..records import Record
from ..units import SecondsOrZero

Array = NDArray[np.float64]
Index = NDArray[np.int64]

UNBOUNDED = sys.maxsize
"""``supernode`` of a fabric whose first domain holds any number of nodes."""


@dataclass(frozen=True)
class LinkKind:
    """``count`` links of one kind, each of ``capacity`` bytes per second in its one direction.

    ``level`` is what they are part of, with those in the other direction: the interfaces, a tier of switches.
    Where they are not all alike, ``capacity`` is the largest and ``rates`` are those of each.
    """

    name: str
    capacity: float
    count: int
    level: str
    rates: Array | None = field(default=None, compare=False)

    @property
    def each(self) -> Array | float:
        """Bytes per second of each link, or of all."""
        return self.capacity if self.rates is None else self.rates

    def faster(self, factor: float) -> LinkKind:
        """The same links with ``factor`` times their bandwidth."""
        rates = None if self.rates is None else self.rates * factor
        return replace(self, capacity=self.capacity * factor, rates=rates)


INTERFACES = "nic"
"""The level of a node's network interfaces, which lie below all others."""


@dataclass(frozen=True)
class Level:
    """One level of links in a tree: every domain (a node, a supernode) has links up, out of it, and links down, into it.

    Traffic uses a domain's links exactly when its other end lies outside the domain. ``capacity`` is that of one link
    in one direction. With several ``cables`` (static routing) a message takes the one that its destination selects.
    """

    name: str
    domain: Index  # [nodes]: the domain that each node lies in
    capacity: float
    cables: int
    slot: Index  # [nodes]: the cable that leads to each node

    @property
    def domains(self) -> int:
        """How many domains the level has."""
        return int(self.domain[-1]) + 1


@dataclass(frozen=True)
class Leg:
    """A part of all routes: its links depend on what ``source[node]`` says of the first node and ``target[node]`` of the last.

    ``links(source, target)`` are those between n pairs of nodes, ``[n, hops]`` and -1 where there are fewer. A node has none to
    itself.
    """

    source: Index  # [nodes]
    target: Index  # [nodes]
    links: Callable[[Index, Index], Index]


class Fabric(Record):
    """What joins the nodes of a machine: directed links, and one route over them for each pair of nodes.

    A machine's file chooses a fabric by its ``kind``; the machine asks it to :meth:`check` its node count. Who carries
    messages numbers the links once (:meth:`kinds`), asks for :meth:`routes`, and adds :meth:`latencies`. The nodes'
    interfaces (``nic.out`` and ``nic.in``, which every route begins and ends with) and the links inside a node are no
    links of the fabric.

    ``routing`` names how a way is found among several; most fabrics know one. Fabrics whose links form a tree say so
    by :meth:`levels`.
    """

    kind: str
    routing: str
    latency_node: SecondsOrZero

    if TYPE_CHECKING:  # some fabrics have a field of this name, which pydantic wants no base class to shadow

        @property
        def supernode(self) -> int:
            """How many consecutive nodes form the first domain: a leaf switch, a group, an island, a plane."""

    @abstractmethod
    def check(self, nodes: int) -> None:
        """Raise ``ValueError`` where ``nodes`` nodes do not fit the fabric's shape."""

    @abstractmethod
    def kinds(self, nodes: int, injection: float, efficiency: float = 1.0) -> list[LinkKind]:
        """The fabric's links as far as the first ``nodes`` nodes can use them.

        ``injection`` is what a node sends, in bytes per second. Rates that the machine's file gives for a link are
        those of the wire: ``efficiency`` is the share of them that reaches the application (``injection`` has it).
        """

    @abstractmethod
    def routes(self, source: Index, target: Index, nodes: int) -> Index:
        """``[n, hops]``: the links between n pairs of different nodes, in order, and -1 where a route has ended.

        Links are numbered through all of ``kinds(nodes, ...)``. The interfaces at both ends are not among them.
        """

    def legs(self, nodes: int) -> tuple[Leg, ...] | None:
        """The parts of which all routes consist; None where each pair of nodes has a way of its own."""
        return None

    @abstractmethod
    def latencies(self, source: Index, target: Index) -> Array:
        """``[n]``: one-way seconds of an empty message between n pairs of nodes; ``latency_node`` inside a node."""

    def levels(self, nodes: int, injection: float) -> list[Level] | None:
        """The levels of a tree, the interfaces first; None where the links form no tree."""
        return None

    @property
    def is_tree(self) -> bool:
        """Whether the links form a tree."""
        return self.levels(1, 1.0) is not None

    @property
    def uplinks_by_level(self) -> dict[str, int]:
        """How many cables of a node's rate lead out of a domain of each level of switches; empty where none can be added."""
        return {}

    @property
    def cables(self) -> int:
        """Cables of a level of a tree among which static routes choose, at most; 1 where there is no such choice."""
        return 1

    def supernodes(self, nodes: int) -> int:
        """Supernodes that ``nodes`` nodes fill, the last one perhaps in part."""
        return -(-nodes // self.supernode)

    def resized(self, supernode: int, nodes: int) -> dict[str, int]:
        """The machine's keys, such as ``fabric.supernode``, that give ``nodes`` nodes supernodes of another size.

        Empty where the size of the first domain cannot be chosen by itself.
        """
        return {}

    @classmethod
    def routings(cls) -> tuple[str, ...]:
        """The routings that this kind of fabric knows."""
        return get_args(cls.model_fields["routing"].annotation)


def in_order(hops: Sequence[Index], pairs: int) -> Index:
    """Columns ``hops[i][pair]`` as routes ``[pairs, hops]``: what is -1 in the middle of a route moves to its end."""
    if not hops:
        return np.zeros((pairs, 0), dtype=np.int64)
    routes = np.stack(hops, axis=1)
    if not ((routes[:, :-1] < 0) & (routes[:, 1:] >= 0)).any():
        return routes
    return np.take_along_axis(routes, np.argsort(routes < 0, axis=1, kind="stable"), axis=1)


def require_room(nodes: int, room: int, shape: str) -> None:
    """Raise ``ValueError`` where ``nodes`` exceed the ``room`` of a fabric that ``shape`` describes."""
    if nodes > room:
        raise ValueError(f"nodes is {nodes:,}: {shape} has room for {room:,}")
