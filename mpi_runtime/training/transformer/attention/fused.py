"""Attention that keeps no scores: one block of keys and values after another, those of other ranks as they come around."""

from __future__ import annotations

import numpy as np

from .....workloads.schedule.operation import Role
from .. import functions as f
from ..halves import Shared
from ..messages import Array, Message
from .unfused import LocalAttention


class FusedLocalAttention(LocalAttention):
    """Causal attention as a fused kernel works it out (Dao et al. 2022), under ``cp`` a ring of them (Liu et al. 2023).

    Forward, keys with values (a block) go to the next rank, which meets them in its next step; sums are corrected with each
    block. What is kept is the last block, the context and a number a query. Backward, blocks go back the way they came, so that
    the last one that a rank meets is its own; their gradients follow a step behind, and each rank adds its share.

    Exchanges run beside the kernels, begun in any order: all that one leaves for the other is kept by step.
    """

    def __init__(self, shared: Shared, layer: int | None) -> None:
        super().__init__(shared, layer)
        self._steps = self.place.of(self.place.context)
        self._blocks: dict[int, Array] = {}  # keys with values, by step
        self._shares: dict[int, Array] = {}  # of the gradients of a step's block, the rank's own
        self._before_me: dict[int, Array] = {}  # those of the ranks that met it before
        self._way = ""  # forward or backward, while it is under way
        nothing = np.zeros((0, 0, 0, 1))
        self._running, self._logarithms, self._row_products = f.Running.none(nothing), nothing, nothing
        self.computing |= {
            (Role.CONTEXT, None, None): self._meet,
            (Role.CONTEXT, None, "input"): self._meet_again,
        }
        self.exchanging |= {
            (Role.RING_SHIFT, None, None): self._pass_on,
            (Role.RING_SHIFT, None, "input"): self._pass_back,
        }

    # --- forward ----------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._way != "forward":
            self._way = "forward"
            self._take_heads()
            self._blocks = {0: np.stack([self._keys, self._values])}
            self._running = f.Running.none(self._queries)

    def _pass_on(self, step: int) -> Message:
        self._begin()

        def take(block: Array) -> None:
            self._blocks[step + 1] = block

        return Message("shift", (self.place.context,), self._blocks[step], take)

    def _meet(self, step: int) -> None:
        self._begin()
        keys, values = self._blocks[step]
        self._running = self._running.joined(self._seen(keys, step), values)
        if step == self._steps - 1:
            context, self._logarithms = self._running.done
            self._context = self._rounded(context)
            self._blocks, self._way = {0: self._blocks[step]}, ""  # where the way back begins

    def _seen(self, keys: Array, step: int) -> Array:
        """Scores of the queries with the block of a step of the forward pass."""
        columns, mine = self._block(step), self._block(0)
        at = np.arange(columns.start, columns.stop)
        return f.seen_scores(f.scores(self._queries, keys), np.arange(mine.start, mine.stop), at)

    # --- backward ---------------------------------------------------------------------------------------------------------

    def _begin_back(self) -> None:
        if self._way != "backward":
            self._way = "backward"
            self._shares, self._before_me = {}, {}
            self._row_products = f.row_products(self._context_gradient(), self._context)
            self._dqueries = np.zeros_like(self._queries)

    def _pass_back(self, step: int) -> Message:
        self._begin_back()
        goes, follows = step < self._steps - 1, step > 0
        leaving = [*([self._blocks[step]] if goes else []), *([self._gradient(step - 1)] if follows else [])]

        def take(coming: Array) -> None:
            if goes:
                self._blocks[step + 1] = coming[0]
            if follows:
                self._before_me[step] = coming[-1]

        return Message("shift", (self.place.context,), np.stack(leaving), take)

    def _meet_again(self, step: int) -> None:
        self._begin_back()
        keys, values = self._blocks[step]
        heads, gradient = keys.shape[2], self._context_gradient()
        attention = np.exp(self._seen(keys, self._steps - 1 - step) - self._logarithms[..., None])
        back = attention * (f.dattention(gradient, values) - self._row_products[..., None])
        self._dqueries = self._dqueries + f.dqueries(back, keys)
        self._shares[step] = np.stack([f.dkeys(back, self._queries, heads), f.dvalues(attention, gradient, heads)])

    def _gradient(self, step: int) -> Array:
        """The gradient of a step's block, of this rank and of those that met it before."""
        mine = self._shares[step]
        return mine + self._before_me[step] if step in self._before_me else mine

    def _first_gradient(self) -> Array:
        return f.columns_of(self._dqueries, *self._gradient(self._steps - 1))
