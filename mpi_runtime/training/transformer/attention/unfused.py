"""Attention on a rank: its heads, of all tokens of a sequence or, in a ring, of its part of them."""

from __future__ import annotations

import numpy as np

from .....workloads.schedule.operation import Role
from .. import functions as f
from ..halves import Half, Shared
from ..messages import Array, Message


class LocalAttention(Half):
    """Causal multi-head attention.

    Under ``cp`` each of n ranks has the queries, keys and values of one part of every sequence. Keys go around a ring: at
    step t a rank scores its queries against the keys of the rank t places before it; values go around in the same way, and
    both again on the way back, where every rank's share of a block's gradient is added up at its owner (ring self-attention,
    Li et al. 2021).
    """

    operator = "attention"
    products_of = ("qkv", "out")

    def __init__(self, shared: Shared, layer: int | None) -> None:
        super().__init__(shared, layer)
        nothing = np.zeros((0, 0, 0, 0))
        self._queries = self._keys = self._values = self._moving = nothing
        self._scores = self._attention = self._context = nothing
        self._back = self._dqueries = self._dkeys = self._dvalues = (
            nothing  # gradients of attention or scores, and of these
        )
        self.computing |= {
            (Role.SCORES, None, None): self._score,
            (Role.SOFTMAX, None, None): self._softmax,
            (Role.CONTEXT, None, None): self._weigh,
            (Role.CONTEXT, "values", "input"): self._differentiate_values,
            (Role.CONTEXT, "scores", "input"): self._differentiate_attention,
            (Role.SOFTMAX, None, "input"): self._softmax_grad,
            (Role.SCORES, "queries", "input"): self._differentiate_queries,
            (Role.SCORES, "keys", "input"): self._differentiate_keys,
        }
        self.exchanging |= {
            (Role.RING_SHIFT, "keys", None): self._shift,
            (Role.RING_SHIFT, "values", None): self._shift,
            (Role.RING_SHIFT, "keys", "input"): self._shift,
            (Role.RING_SHIFT, "values", "input"): self._shift,
            (Role.RING_SUM, "values", "input"): self._reduce_values,
            (Role.RING_SUM, "keys", "input"): self._reduce_keys,
        }

    def _rounded(self, values: Array) -> Array:
        """In the format of attention."""
        return self.shared.rounded("attention")(values)

    # --- the ring ---------------------------------------------------------------------------------------------------------

    def _owner(self, step: int) -> int:
        """Whose keys or values are here at a step."""
        ring = self.place.ring or tuple(range(self.place.of(self.place.context)))
        return ring[(ring.index(self.place.me(self.place.context)) - step) % len(ring)]

    def _block(self, step: int) -> slice:
        """The columns of scores that belong to them."""
        each, owner = self._keys.shape[1], self._owner(step)
        return slice(owner * each, (owner + 1) * each)

    def _shift(self, step: int) -> Message:
        def take(block: Array) -> None:
            self._moving = block

        return Message("shift", (self.place.context,), np.ascontiguousarray(self._moving), take)

    # --- forward ----------------------------------------------------------------------------------------------------------

    def _score(self, step: int) -> None:
        if step == 0:
            self._take_heads()
            self._moving = self._keys
            sequences, tokens, heads, _ = self._queries.shape
            self._scores = np.empty(
                (sequences, heads, tokens, tokens * self.place.of(self.place.context)), dtype=self._queries.dtype
            )
        self._scores[..., self._block(step)] = self._rounded(f.scores(self._queries, self._moving))

    def _take_heads(self) -> None:
        """Queries, keys and values from the product's columns."""
        place, sizes = self.place, self.shared.sizes
        sequences, tokens = len(self.shared.words) // place.grid, self.shared.words.shape[1]
        columns = self.products["qkv"].c.reshape(sequences, tokens, -1, sizes.group + 2, sizes.head)
        self._queries, self._keys, self._values = f.heads_of(columns)

    def _softmax(self, step: int) -> None:
        keys_at = np.arange(self._scores.shape[3])
        self._attention = self._rounded(f.softmax(self._scores, keys_at[self._block(0)], keys_at))

    def _weigh(self, step: int) -> None:
        if step == 0:
            self._moving = self._values
        part = f.context(self._attention[..., self._block(step)], self._moving)
        self._context = self._rounded(part if step == 0 else self._context + part)

    def _second_source(self) -> Array:
        return self._context.reshape(-1, self._context.shape[2] * self._context.shape[3])

    # --- backward ---------------------------------------------------------------------------------------------------------

    def _context_gradient(self) -> Array:
        return self.products["out"].da.reshape(self._queries.shape)

    def _by_owner(self) -> Array:
        """Room for the gradient of every rank's keys or values, ``[cp, …]``."""
        return np.zeros((self.place.of(self.place.context), *self._keys.shape), dtype=self._keys.dtype)

    def _differentiate_values(self, step: int) -> None:
        if step == 0:
            self._dvalues = self._by_owner()
        attention = self._attention[..., self._block(step)]
        self._dvalues[self._owner(step)] = f.dvalues(attention, self._context_gradient(), self._keys.shape[2])

    def _differentiate_attention(self, step: int) -> None:
        if step == 0:
            self._moving, self._back = self._values, np.empty_like(self._attention)
        self._back[..., self._block(step)] = self._rounded(f.dattention(self._context_gradient(), self._moving))

    def _reduce_values(self, step: int) -> Message:
        def take(mine: Array) -> None:
            self._dvalues = mine[None]

        return Message("reduce-scatter", (self.place.context,), self._dvalues, take)

    def _softmax_grad(self, step: int) -> None:
        self._back = self._rounded(f.softmax_grad(self._attention, self._back))

    def _differentiate_queries(self, step: int) -> None:
        if step == 0:
            self._moving = self._keys
        part = f.dqueries(self._back[..., self._block(step)], self._moving)
        self._dqueries = part if step == 0 else self._dqueries + part

    def _differentiate_keys(self, step: int) -> None:
        if step == 0:
            self._dkeys = self._by_owner()
        heads = self._keys.shape[2]
        self._dkeys[self._owner(step)] = f.dkeys(self._back[..., self._block(step)], self._queries, heads)

    def _reduce_keys(self, step: int) -> Message:
        def take(mine: Array) -> None:
            self._dkeys = mine[None]

        return Message("reduce-scatter", (self.place.context,), self._dkeys, take)

    def _first_gradient(self) -> Array:
        return f.columns_of(self._dqueries, self._dkeys[0], self._dvalues[0])
