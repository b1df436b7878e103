"""One mixture-of-experts layer on a rank: real tokens go to their experts and come back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.model.number_types import TYPES
from ...workloads.routing.balancers.past import BEGINNING
from ...workloads.schedule.operation import Role
from ...workloads.schedule.work import Exchange
from ..messages.rounds import Requests
from ..messages.transport import Transport
from .token_routing import Index, Routing

Array = NDArray[Any]
Steps = Generator[Requests, None, None]


def stand_in(expert: Index) -> Array:
    """What an expert multiplies tokens by where nothing is computed: another power of two for each of eight."""
    return np.ldexp(1.0, np.asarray(expert) % 8 - 4)


class MoeLayer:
    """The tokens of a rank in one layer and micro-batch.

    ``tokens[token, hidden]`` go out, ``merged`` is what came back, weighted by ``weights[token, choice]``; backward, ``gradient``
    takes the same way. Methods named like operations of the Schedule are what these do on this rank; those of messages are
    generators. What experts make of what ``arrived`` is put into ``answers``, and of ``gradients`` that came into the same.
    """

    def __init__(self, transport: Transport, routing: Routing, tokens: Array, weights: Array) -> None:
        self.transport, self.routing, self.tokens, self.weights = transport, routing, tokens, weights
        self.everyone = routing.wanted[None]  # what the whole group wants, for gates that know it
        self.past = BEGINNING
        self.gradient = tokens
        self.merged = self.merged_gradient = tokens
        self.out = self.back = np.zeros(0, dtype=np.int64)
        self.asked = np.zeros(0, dtype=np.int64)
        self._surplus = self._room = self.asked
        self._refused = 0
        self._rows: Array = tokens[:0]
        self.arrived = self.answers = self.gradients = self._rows
        self._by_expert = np.zeros((0, 0), dtype=np.int64)
        self._order = self._home = self.asked

    @property
    def carried(self) -> int:
        """Tokens that this rank's experts carry."""
        return int(self._by_expert.sum())

    # --- SWIPE's messages -------------------------------------------------------------------------------------------------

    @property
    def balancing(self) -> dict[Role, Callable[[int, str, Exchange], Steps]]:
        """SWIPE's exchanges for a choice."""
        return {
            Role.TOKENS_WANTED: self._ask,
            Role.TOKENS_ACCEPTED: self._accept,
            Role.TOKENS_REFUSED: self._tell_surplus,
            Role.ROOM_LEFT: self._tell_room,
        }

    def _ask(self, choice: int, stream: str, exchange: Exchange) -> Steps:
        self.asked = yield from self._one_each(self.routing.wants(choice), stream, exchange)

    def _accept(self, choice: int, stream: str, exchange: Exchange) -> Steps:
        accepted = yield from self._one_each(self.routing.admit(self.asked), stream, exchange)
        self._refused = self.routing.refuse(choice, accepted)

    def _tell_surplus(self, choice: int, stream: str, exchange: Exchange) -> Steps:
        self._surplus = yield from self._told(self._refused, stream, exchange)

    def _tell_room(self, choice: int, stream: str, exchange: Exchange) -> Steps:
        self._room = yield from self._told(self.routing.room, stream, exchange)

    def _one_each(self, send: Index, stream: str, exchange: Exchange) -> Generator[Requests, None, Index]:
        """A number for each rank, and one from each."""
        ones = np.ones(self.routing.ranks, dtype=np.int64)
        found: Index = yield from self.transport.exchange(stream, exchange, send, ones, ones, self.routing.ranks)
        return found

    def _told(self, number: int, stream: str, exchange: Exchange) -> Generator[Requests, None, Index]:
        """The numbers of all ranks, of which this one's is ``number``."""
        mine = np.zeros(self.routing.ranks, dtype=np.int64)
        mine[self.routing.me] = number
        found: Index = yield from self.transport.whole(stream, exchange, mine)
        return found

    def deal(self, choice: int) -> None:
        """SWIPE's dealing; with a single rank there is nobody to deal to."""
        if self.routing.ranks > 1:
            self.routing.deal(choice, self._surplus, self._room)

    # --- forward ----------------------------------------------------------------------------------------------------------

    def counts(self, stream: str, exchange: Exchange) -> Steps:
        """How many tokens come to each of this rank's experts from each rank."""
        self._by_expert = yield from self._one_each(self.routing.counts(), stream, exchange)

    def permute(self) -> None:
        """Tokens in the order of the experts that they go to."""
        if self.routing.ranks == 1:
            self._by_expert = self.routing.counts()
        elif self.routing.arriving is not None:
            self._by_expert = self.routing.arriving
        self.out, self.back = self.routing.counts().sum(axis=1), self._by_expert.sum(axis=1)
        self._order = self.routing.order()
        self._home = np.repeat(np.tile(np.arange(self.routing.slots), self.routing.ranks), self._by_expert.reshape(-1))
        self._rows = self.tokens[self._order // self.weights.shape[1]]
        self.arrived = self._rows

    def dispatch(self, stream: str, exchange: Exchange) -> Steps:
        """Tokens go to their experts."""
        self.arrived = yield from self._send(stream, exchange, self._rows, self.out, self.back)

    def rows_of_experts(self) -> list[Index]:
        """Which of the tokens that arrived are for each of this rank's experts."""
        return [np.flatnonzero(self._home == expert) for expert in range(self.routing.slots)]

    def stand_in(self) -> None:
        """The experts' answers where nothing is computed."""
        self.answers = (self.arrived * self._factors()).astype(self.arrived.dtype)

    def combine(self, stream: str, exchange: Exchange) -> Steps:
        """Answers go back to where their tokens came from."""
        self.answers = yield from self._send(stream, exchange, self.answers, self.back, self.out)

    def merge(self) -> None:
        """The weighted sum of each token's answers."""
        self.merged = self._summed(self.answers, weighted=True)

    # --- backward ---------------------------------------------------------------------------------------------------------

    def merge_gradient(self) -> None:
        """Gradients of the answers, in the order of their experts."""
        top_k = self.weights.shape[1]
        weighted = self.gradient[self._order // top_k] * self.weights.reshape(-1)[self._order, None]
        self._rows = weighted.astype(self.tokens.dtype)
        self.gradients = self._rows

    def combine_gradient(self, stream: str, exchange: Exchange) -> Steps:
        """They go to the experts."""
        self.gradients = yield from self._send(stream, exchange, self._rows, self.out, self.back)

    def weights_gradient(self) -> Array:
        """Gradient of ``weights``: what each answer has of the gradient of its token."""
        found = np.zeros(self.weights.size, dtype=self.answers.dtype)
        found[self._order] = (self.gradient[self._order // self.weights.shape[1]] * self.answers).sum(axis=1)
        return found.reshape(self.weights.shape)

    def stand_in_gradient(self) -> None:
        """Gradients of the tokens that arrived where nothing is computed."""
        self.gradients = (self.gradients * self._factors()).astype(self.gradients.dtype)

    def dispatch_gradient(self, stream: str, exchange: Exchange) -> Steps:
        """They go back to where the tokens came from."""
        self.gradients = yield from self._send(stream, exchange, self.gradients, self.back, self.out)

    def permute_gradient(self) -> None:
        """The sum of each token's gradients."""
        self.merged_gradient = self._summed(self.gradients, weighted=False)

    # --- checks -----------------------------------------------------------------------------------------------------------

    def expected(self) -> tuple[Array, Array]:
        """What ``merged`` and ``merged_gradient`` of stand-ins have to be, worked out by this rank alone, expert by expert."""
        merged = np.zeros(self.tokens.shape, dtype=np.float64)
        gradients = np.zeros_like(merged)
        for expert in np.unique(self.routing.expert[self.routing.expert >= 0]):
            token, choice = np.nonzero(self.routing.expert == expert)
            weight, factor = self.weights[token, choice][:, None], stand_in(expert)
            np.add.at(merged, token, weight * (self.tokens[token] * factor))
            np.add.at(gradients, token, (self.gradient[token] * weight).astype(self.tokens.dtype) * factor)
        return merged, gradients

    def _send(
        self, stream: str, exchange: Exchange, rows: Array, out: Index, back: Index
    ) -> Generator[Requests, None, Array]:
        leaving = rows.astype(TYPES[exchange.element], copy=False)
        arrived: Array = yield from self.transport.exchange(stream, exchange, leaving, out, back, self._most)
        return arrived.astype(rows.dtype, copy=False)

    @property
    def _most(self) -> int:
        """Rows that a rank sends at most: forward its own tokens, on the way back what the fullest rank may carry."""
        return self.routing.wanted.size * self.routing.ranks

    def _factors(self) -> Array:
        """What each arrived token is multiplied by where nothing is computed."""
        first = self.routing.me * self.routing.local
        return stand_in(first + self._home)[:, None].astype(self.arrived.dtype)

    def _summed(self, rows: Array, weighted: bool) -> Array:
        """The rows of each token's choices, added up (weighted)."""
        tokens, top_k = self.weights.shape
        spread = np.zeros((tokens * top_k, rows.shape[1]), dtype=rows.dtype)
        spread[self._order] = (
            rows * self.weights.reshape(-1)[self._order, None].astype(rows.dtype) if weighted else rows
        )
        total: Array = spread.reshape(tokens, top_k, -1).sum(axis=1, dtype=rows.dtype)
        return total
