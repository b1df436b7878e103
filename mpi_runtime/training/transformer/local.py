"""What one rank computes and exchanges for one micro-batch, by the tasks of a Schedule's operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ....workloads.model.precision import Part
from ....workloads.schedule.operation import ModelPart, Role, Task
from ....workloads.schedule.work import Exchange
from ...messages.transport import Transport
from . import functions as f
from .attention.unfused import LocalAttention
from .carrying import Steps, carry
from .experts.mixture import BESIDE, LocalMixture, Routes
from .halves import Half, Index, LocalFeedForward, Output, Shared
from .messages import Array, Message
from .rounding import Rounded, no_rounding
from .weights.shards import EMBEDDING, Place, Sizes, Weight


class MicroBatch:
    """A micro-batch on its way through the layers of a rank and back.

    Operations come in the order of the Schedule: :meth:`compute` does those that compute, :meth:`message` gives the rank's side
    of those that exchange. ``weights`` and ``gradients`` are the rank's parts; gradients are added to. ``words`` and
    ``targets`` ``[sequences, tokens]`` are those of all tensor-parallel ranks of the replica, this rank's part of each
    sequence under ``cp``; the loss is the mean of ``tokens`` tokens in all. ``attention`` computes the plan's kernel. ``routes``
    are the ways of tokens to experts, where there are any.

    The rows of the residual stream that enter each half of a layer are kept, so that any half can be computed again.
    """

    def __init__(
        self,
        sizes: Sizes,
        place: Place,
        weights: Mapping[Weight, Array],
        gradients: Mapping[Weight, Array],
        words: Index,
        targets: Index,
        tokens: int,
        attention: type[LocalAttention] = LocalAttention,
        routes: Routes | None = None,
        rounded: Callable[[Part], Rounded] = no_rounding,
        scale: float = 1.0,
    ) -> None:
        self.shared = Shared(sizes, place, weights, gradients, words, targets, tokens, rounded, scale)
        self._attention, self._routes = attention, routes
        self.sizes, self.place = sizes, place
        self._entries: dict[int, Array] = {}
        self._halves: dict[int, Half] = {}
        self._embedded = self._block = np.zeros((0, 0))

    # --- operations -------------------------------------------------------------------------------------------------------

    def compute(self, task: Task) -> None:
        """Do what a compute operation does; raises ``KeyError`` for one that is not known."""
        if task.part == "embedding":
            {(Role.LOOKUP, None): self._look_up, (Role.LOOKUP, "weight"): self._add_up}[task.role, task.gradient](
                task.step or 0
            )
            return
        half, number = self._half(task.part, task.layer), self._number(task.part, task.layer)
        if task.role is Role.RESIDUAL:
            self._entries[number + 1] = self.shared.rounded("norm")(half.entry + half.result)
            return
        if task.role is Role.NORM and task.gradient is None:
            half.entry = self._entry(number)
        half.compute(task)

    def message(self, task: Task) -> Message:
        """The rank's side of an exchange; raises ``KeyError`` for one that is not known."""
        if task.part == "embedding":
            return {
                (Role.OUTPUT_SUM, None): self._embedding_reduce,
                (Role.OUTPUT_SUM, "input"): self._embedding_gather,
                (Role.BLOCK_OF_WEIGHT, None): self._embedding_block,
                (Role.BLOCK_SUM, "weight"): self._embedding_grad_reduce,
            }[task.role, task.gradient](task.step or 0)
        return self._half(task.part, task.layer).message(task)

    def carry(self, transport: Transport, task: Task, stream: str, exchange: Exchange) -> Steps:
        """Send and receive what an exchange carries: a message, or tokens of which ranks tell each other how many come."""
        half = None if task.part == "embedding" else self._half(task.part, task.layer)
        if isinstance(half, LocalMixture) and half.moves(task):
            yield from half.move(task, stream, exchange)
        else:
            yield from carry(transport, stream, exchange, self.message(task))

    @property
    def mixtures(self) -> dict[int, LocalMixture]:
        """The halves that have experts and are not through yet, by layer."""
        return {each.number: each for each in self._halves.values() if isinstance(each, LocalMixture)}

    # --- what pipeline stages hand on -------------------------------------------------------------------------------------

    def enter(self, layer: int, rows: Array) -> None:
        """Take the rows that enter a layer (or, behind the last, the output layer) from the stage before."""
        self._entries[2 * layer] = rows

    def leave(self, layer: int) -> Array:
        """The rows that enter a layer, for the stage that holds it."""
        return self._entry(2 * layer)

    def _entry(self, number: int) -> Array:
        """The rows that enter a half; what experts add has no operation of its own."""
        if number not in self._entries:
            before = self._halves[number - 1]
            self._entries[number] = self.shared.rounded("norm")(before.entry + before.result)
        return self._entries[number]

    def forget(self, layer: int) -> None:
        """The backward pass is through a layer: nothing of it is needed any more."""
        for number in (2 * layer, 2 * layer + 1):
            self._halves.pop(number, None)
            self._entries.pop(number, None)

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

    def _number(self, part: ModelPart | None, layer: int | None) -> int:
        """Halves are counted through the model: two a layer, then the output layer."""
        return 2 * self.sizes.layers if layer is None else 2 * layer + (part in ("ffn", "moe", BESIDE))

    def _half(self, part: ModelPart | None, layer: int | None) -> Half:
        number = self._number(part, layer)
        if number not in self._halves and part in ("moe", BESIDE):
            assert self._routes is not None, "nobody says where tokens go"
            self._halves[number] = LocalMixture(self.shared, layer, self._routes)
        elif number not in self._halves:
            halves: dict[ModelPart | None, type[Half]] = {
                "attention": self._attention,
                "ffn": LocalFeedForward,
                "output": Output,
            }
            made = halves[part]
            self._halves[number] = made(self.shared, layer)
        return self._halves[number]

    # --- embedding: tp cuts words; on a grid rows of ranks do, columns cut ``hidden``, and blocks go along the columns --------

    def _look_up(self, step: int) -> None:
        shared = self.shared
        if self.place.grid > 1:
            part = f.lookup(self._block, shared.mine(shared.words), step * shared.words_each)
            self._entries[0] = part if step == 0 else self._entries[0] + part
            return
        first = self.place.me("tp") * shared.words_each
        rows = f.lookup(shared.weights[EMBEDDING], shared.words.reshape(-1), first)
        self._embedded = shared.rounded("embedding")(rows)
        if self.place.of("tp") == 1:
            self._entries[0] = self._embedded

    def _embedding_block(self, step: int) -> Message:
        def take(block: Array) -> None:
            self._block = block

        return Message("broadcast", ("row",), self.shared.weights[EMBEDDING], take, step)

    def _embedding_reduce(self, step: int) -> Message:
        """Every token finds its row on one rank."""

        def take(rows: Array) -> None:
            self._entries[0] = rows

        if self.place.sequence_parallel:
            parts = self._embedded.reshape(self.place.by_tokens, -1, self._embedded.shape[1])
            return Message("reduce-scatter", ("tp",), parts, take)
        return Message("all-reduce", ("tp",), self._embedded, take)

    def _embedding_gather(self, step: int) -> Message:
        """The gradient of every token's row goes to the rank that holds its word."""

        def take(parts: Array) -> None:
            self.shared.gradient = parts.reshape(-1, parts.shape[-1])

        return Message("all-gather", ("tp",), self.shared.stream, take)

    def _add_up(self, step: int) -> None:
        shared = self.shared
        if self.place.grid > 1:
            self._block = np.zeros_like(shared.gradients[EMBEDDING])
            f.lookup_grad(self._block, shared.mine(shared.words), shared.stream, step * shared.words_each)
            return
        first = self.place.me("tp") * shared.words_each
        f.lookup_grad(shared.gradients[EMBEDDING], shared.words.reshape(-1), shared.stream, first)

    def _embedding_grad_reduce(self, step: int) -> Message:
        def take(block: Array) -> None:
            total = self.shared.gradients[EMBEDDING]
            total += block

        return Message("reduce", ("row",), self._block, take, step)
