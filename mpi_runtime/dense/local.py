"""What one rank computes and exchanges for one micro-batch, by the names of a Schedule's operations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import functions as f
from .attention import Attention
from .halves import FeedForward, Half, Index, Output, Shared
from .messages import Array, Message
from .shards import Place, Sizes


class MicroBatch:
    """A micro-batch on its way through the layers of a rank and back.

    Operations come in the order of the Schedule: :meth:`compute` does those that compute, :meth:`message` gives the rank's side
    of those that exchange. ``weights`` and ``gradients`` are the rank's parts by name; gradients are added to. ``words`` and
    ``targets`` ``[sequences, tokens]`` are those of all tensor-parallel ranks of the replica, this rank's part of each
    sequence under ``cp``; the loss is the mean of ``tokens`` tokens in all.

    The rows of the residual stream that enter each half of a layer are kept, so that any half can be computed again.
    """

    def __init__(
        self,
        sizes: Sizes,
        place: Place,
        weights: Mapping[str, Array],
        gradients: Mapping[str, Array],
        words: Index,
        targets: Index,
        tokens: int,
    ) -> None:
        self.shared = Shared(sizes, place, weights, gradients, words, targets, tokens)
        self.sizes, self.place = sizes, place
        self._entries: dict[int, Array] = {}
        self._halves: dict[int, Half] = {}
        self._embedded: Array = np.zeros((0, 0))

    # --- operations -------------------------------------------------------------------------------------------------------

    def compute(self, what: str, layer: int | None = None) -> None:
        """Do what a compute operation does; raises ``KeyError`` for one that is not known."""
        of, _, rest = what.partition(".")
        if of == "embedding":
            {"lookup": self._look_up, "grad": self._add_up}[rest]()
            return
        half = self._half(of, layer)
        number = self._number(of, layer)
        if rest == "residual":
            self._entries[number + 1] = half.entry + half.result
            return
        if rest == "norm":
            half.entry = self._entries[number]
        half.compute(rest)

    def message(self, what: str, layer: int | None = None) -> Message:
        """The rank's side of an exchange; raises ``KeyError`` for one that is not known."""
        of, _, rest = what.partition(".")
        if of == "embedding":
            return {"reduce": self._embedding_reduce, "gather.grad": self._embedding_gather}[rest]()
        return self._half(of, layer).message(rest)

    # --- what pipeline stages hand on -------------------------------------------------------------------------------------

    def enter(self, layer: int, rows: Array) -> None:
        """Take the rows that enter a layer (or, behind the last, the output layer) from the stage before."""
        self._entries[2 * layer] = rows

    def leave(self, layer: int) -> Array:
        """The rows that enter a layer, for the stage that holds it."""
        return self._entries[2 * layer]

    @property
    def gradient(self) -> Array:
        """The gradient of the rows that entered the lowest layer done on the way back, for the stage before."""
        return self.shared.stream

    @gradient.setter
    def gradient(self, rows: Array) -> None:
        self.shared.gradient = rows

    @property
    def loss(self) -> float:
        """The part of the mean loss that this rank knows; the same on all ranks along ``tp`` and ``col``."""
        output = self._half("output", None)
        assert isinstance(output, Output)
        return output.loss

    def _number(self, name: str, layer: int | None) -> int:
        """Halves are counted through the model: two a layer, then the output layer."""
        return 2 * self.sizes.layers if layer is None else 2 * layer + (name == "ffn")

    def _half(self, name: str, layer: int | None) -> Half:
        number = self._number(name, layer)
        if number not in self._halves:
            made = {"attention": Attention, "ffn": FeedForward, "output": Output}[name]
            self._halves[number] = made(self.shared, "" if layer is None else f"l{layer}.")
        return self._halves[number]

    # --- embedding --------------------------------------------------------------------------------------------------------

    @property
    def _first_word(self) -> int:
        axis = "col" if self.place.grid > 1 else "tp"
        return int(self.place.part(self.sizes.vocabulary, axis).start)

    def _look_up(self) -> None:
        """Rows of this rank's words: of all tokens, and on a grid of all the sequences of the replica."""
        self._embedded = f.lookup(self.shared.weights["embedding"], self.shared.words.reshape(-1), self._first_word)
        if self.place.of("tp") == self.place.grid == 1:
            self._entries[0] = self._embedded

    def _embedding_reduce(self) -> Message:
        """Tokens find their row on one rank.

        On a grid, a rank holds columns of ``hidden`` by its row, and words by its column: rows of ranks take their sequences and
        columns of ranks their part of ``hidden``.
        """

        def take(rows: Array) -> None:
            self._entries[0] = rows

        rows, q = self._embedded, self.place.grid
        if q > 1:
            spread = np.zeros((q, q, len(rows) // q, rows.shape[1]), dtype=rows.dtype)
            spread[:, self.place.me("row")] = rows.reshape(q, -1, rows.shape[1])
            return Message("reduce-scatter", ("row", "col"), spread.reshape(q * q, *spread.shape[2:]), take)
        if self.place.sequence_parallel:
            parts = rows.reshape(self.place.by_tokens, -1, rows.shape[1])
            return Message("reduce-scatter", ("tp",), parts, take)
        return Message("all-reduce", ("tp",), rows, take)

    def _embedding_gather(self) -> Message:
        """The gradient of every token's row goes to the ranks that may hold its word."""

        def take(parts: Array) -> None:
            q = self.place.grid
            if q > 1:
                parts = parts.reshape(q, q, *parts.shape[1:])[:, self.place.me("row")]
            self.shared.gradient = parts.reshape(-1, parts.shape[-1])

        return Message("all-gather", ("row", "col") if self.place.grid > 1 else ("tp",), self.shared.stream, take)

    def _add_up(self) -> None:
        total = self.shared.gradients["embedding"]
        f.lookup_grad(total, self.shared.words.reshape(-1), self.shared.stream, self._first_word)
