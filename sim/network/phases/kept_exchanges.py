"""Exchanges that are known already, or that bring back what a known one took: links carry the same, the other way."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from ....workloads.mesh.mesh import Mesh
from ....workloads.schedule.work import Amount, Exchange
from ..links import LinkLoads

Found = TypeVar("Found")

LATEST = 1 << 18
"""Ranks of the latest exchanges that are kept, of two exchanges at least: of a layer, one brings back what the other takes."""

SAME = 1e-12
"""Part by which what a group sends may differ from what it receives."""


@dataclass
class KeptExchanges(Generic[Found]):
    """What was found of the latest exchanges, ``most`` of them, by what they send."""

    most: int
    _known: dict[Hashable, tuple[Exchange, Found]] = field(default_factory=dict)

    def get(self, key: Hashable) -> Found | None:
        """What is known."""
        known = self._known.get(key)
        return known[1] if known else None

    def put(self, key: Hashable, exchange: Exchange, found: Found) -> None:
        """Keep what was found, with the exchange, so that no other array comes to have the number of one of its own."""
        self._known[key] = exchange, found
        while len(self._known) > max(2, self.most):
            del self._known[next(iter(self._known))]

    def clear(self) -> None:
        """Keep none."""
        self._known.clear()


def backwards(exchange: Exchange) -> Hashable:
    """What an exchange :attr:`~.Exchange.sends` that brings back what this one takes: senders and receivers are exchanged."""
    return exchange.operation, exchange.algorithm, exchange.axes, id(exchange.received), id(exchange.nbytes)


def balanced(exchange: Exchange, mesh: Mesh) -> bool:
    """Whether each group sends in all what its members are to receive, so that each pair's bytes are those of the way back."""
    sent, received = (_mean(each, mesh.positions(exchange.axes)) for each in (exchange.nbytes, exchange.received))
    return bool((abs(sent - received) <= SAME * abs(sent)).all())


def _mean(amount: Amount | None, along: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Of each group, broadcasting over the mesh."""
    array = np.asarray(amount, dtype=np.float64)
    return array.mean(axis=along, keepdims=True) if array.ndim else array


def the_other_way(loads: LinkLoads) -> LinkLoads:
    """The same bytes the other way: out of where they came in. Where a level has one kind of links, that leads both ways."""
    others = {
        kind.name: next(
            (each.name for each in loads.kinds if each.level == kind.level and each.name != kind.name), kind.name
        )
        for kind in loads.kinds
    }
    return LinkLoads(loads.kinds, {others[name]: nbytes for name, nbytes in loads.loads.items()})
