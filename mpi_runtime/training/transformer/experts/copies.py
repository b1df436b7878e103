"""Copies of experts on a rank: their weights come before tokens do, and their gradients go back to where they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....workloads.model.number_types import TYPES
from .....workloads.schedule.work import Exchange
from ....messages.transport import Transport
from ...moe_layer import Steps
from ..carrying import carry
from ..messages import Message

Array = NDArray[Any]
Index = NDArray[np.int64]


@dataclass
class ExpertCopies:
    """The copies of a layer's experts in a micro-batch.

    ``held[ranks, slots]`` are the experts that each rank of the group takes tokens of; ``local`` ones live on each. ``weights``
    gives both matrices of an expert that lives on this rank, and ``gradients`` those that are added to. :meth:`of_slot` has what
    a slot computes with, once :meth:`send` has brought the weights; :meth:`give_back` takes gradients to where experts live.
    """

    transport: Transport
    held: Index
    local: int
    me: int
    weights: Callable[[int], tuple[Array, Array]]
    gradients: Callable[[int], tuple[Array, Array]]
    _copies: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    _totals: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    def of_slot(self, slot: int) -> tuple[tuple[Array, Array], tuple[Array, Array]] | None:
        """(weights, sums of gradients) of a slot; None of one that is empty."""
        expert = int(self.held[self.me, slot])
        if expert < 0:
            return None
        if self._home(expert) == self.me:
            return self.weights(expert), self.gradients(expert)
        return self._copies[expert], self._totals[expert]

    def begin(self) -> None:
        """Gradients of copies are zero: the experts' products begin, perhaps once more."""
        self._totals = {expert: (np.zeros_like(up), np.zeros_like(down)) for expert, (up, down) in self._copies.items()}

    def send(self, stream: str, exchange: Exchange) -> Steps:
        """Weights go to the ranks that take tokens of their experts."""
        if exchange.operation == "broadcast":
            for expert in self._shared():
                yield from self._broadcast(expert, stream, exchange)
            return
        leaving = [self._row(self.weights(expert)) for _, expert in self._sent(self.me)]
        rows = yield from self._exchange(leaving, False, stream, exchange)
        for row, (_, expert) in zip(rows, self._taken(self.me), strict=True):
            self._copies[expert] = self._matrices(row)

    def give_back(self, stream: str, exchange: Exchange) -> Steps:
        """Gradients of copies are added to those of their experts."""
        if exchange.operation == "reduce":
            for expert in self._shared():
                yield from self._reduce(expert, stream, exchange)
            return
        leaving = [self._row(self._totals[expert]) for _, expert in self._taken(self.me)]
        rows = yield from self._exchange(leaving, True, stream, exchange)
        for row, (_, expert) in zip(rows, self._sent(self.me), strict=True):
            self._add(expert, row)

    def _home(self, expert: int) -> int:
        return expert // self.local

    def _shared(self) -> list[int]:
        """Experts that all ranks have."""
        return list(dict.fromkeys(int(each) for each in self.held[0, self.local :]))

    def _taken(self, rank: int) -> list[tuple[int, int]]:
        """(home, expert) of the copies that a rank has, home after home."""
        mine = dict.fromkeys(int(each) for each in self.held[rank] if each >= 0)
        return sorted((self._home(each), each) for each in mine if self._home(each) != rank)

    def _sent(self, rank: int) -> list[tuple[int, int]]:
        """(to, expert) of the copies that a rank sends, receiver after receiver."""
        return [(to, each) for to in range(len(self.held)) for home, each in self._taken(to) if home == rank]

    def _exchange(self, leaving: list[Array], back: bool, stream: str, exchange: Exchange) -> Any:
        ranks, kind = len(self.held), TYPES[exchange.element]
        out, arriving = (
            np.bincount([other for other, _ in each], minlength=ranks)
            for each in (self._sent(self.me), self._taken(self.me))
        )
        if back:
            out, arriving = arriving, out
        width = sum(each.size for each in self.weights(self.me * self.local))
        rows = np.array(leaving, dtype=kind).reshape(-1, width)
        most = int(max(out.max(initial=0), arriving.max(initial=0), self.held.size))
        found = yield from self.transport.exchange(stream, exchange, rows, out, arriving, most)
        return found

    def _broadcast(self, expert: int, stream: str, exchange: Exchange) -> Steps:
        def take(row: Array) -> None:
            if self._home(expert) != self.me:
                self._copies[expert] = self._matrices(row)

        row = self._row(self.weights(expert if self._home(expert) == self.me else self.me * self.local))
        yield from carry(
            self.transport, stream, exchange, Message("broadcast", exchange.axes, row, take, self._home(expert))
        )

    def _reduce(self, expert: int, stream: str, exchange: Exchange) -> Steps:
        mine = self._home(expert) == self.me
        row = np.zeros_like(self._row(self.gradients(expert))) if mine else self._row(self._totals[expert])
        message = Message("reduce", exchange.axes, row, lambda total: self._add(expert, total), self._home(expert))
        yield from carry(self.transport, stream, exchange, message)

    def _add(self, expert: int, row: Array) -> None:
        for total, part in zip(self.gradients(expert), self._parts(row), strict=True):
            total += part

    def _row(self, matrices: tuple[Array, Array]) -> Array:
        return np.concatenate([each.reshape(-1) for each in matrices])

    def _matrices(self, row: Array) -> tuple[Array, Array]:
        up, down = (each.astype(np.promote_types(row.dtype, np.float32)) for each in self._parts(row))
        return up, down

    def _parts(self, row: Array) -> Iterator[Array]:
        """A row as the two matrices of an expert."""
        start = 0
        for like in self.weights(self.me * self.local):
            yield row[start : start + like.size].reshape(like.shape)
            start += like.size
