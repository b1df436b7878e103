"""What a kernel of attention is: how queries meet keys and values, what it keeps for the way back, and what it sends under cp."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from ...hardware.precisions import Precision
from ...hardware.registry import Policy
from ..schedule.operation import Task
from ..schedule.work import FusedAttention, Gemm, Sweep

if TYPE_CHECKING:
    from ..lowering.builder import Program


class AttentionCore(Protocol):
    """A rank's part of attention in a layer, as a kernel finds it.

    Each of its heads and sequences has ``queries`` and meets ``keys`` in all, which are those of ``parts`` ranks along cp.
    """

    @property
    def queries(self) -> float:
        """Queries of the rank in a sequence."""
        ...

    @property
    def keys(self) -> float:
        """Keys that a query meets in all."""
        ...

    @property
    def parts(self) -> int:
        """Ranks that a sequence is cut over."""
        ...

    @property
    def around(self) -> tuple[str, ...]:
        """The axes that a sequence is cut over."""
        ...

    @property
    def sizes(self) -> tuple[float, float]:
        """Elements of a head's query (and key), and of its value."""
        ...

    @property
    def key_value_elements(self) -> tuple[float, float]:
        """Elements of the rank's keys, and of its values, of all its heads and tokens."""
        ...

    @property
    def precision(self) -> Precision:
        """The format that it computes in."""
        ...

    def heads(self, m: float, n: float, k: float) -> Gemm:
        """A product for every head and sequence of the rank."""
        ...

    def softmax(self, backward: bool) -> Sweep:
        """A pass over all scores of the rank."""
        ...

    def fused(self, products: int, parts: int = 1, kernel: str = "") -> FusedAttention:
        """One kernel of so many products of the rank's queries with one of so many parts of the keys, by its name."""
        ...


@dataclass(frozen=True)
class Kept:
    """What a kernel leaves for the backward pass: ``nbytes`` at an operator, whose name stands in tables of memory.

    ``core`` and ``product`` as kinds of recomputation ask them (:class:`~athanor.workloads.recomputation.SavedRow`).
    """

    operator: str
    what: str
    nbytes: float
    core: bool = False
    product: float = 0.0


class AttentionKernel(Policy, ABC):
    """How attention is worked out, from queries, keys and values to the context, and back.

    ``keeps_scores``: scores are in memory between the passes, so that recomputation can drop them and work them out again.
    ``name`` is that of a fused kernel whose rates machines say (``core_group.attention``), empty for any other, and for the best
    that a machine has.
    """

    keeps_scores: ClassVar[bool] = False
    name: ClassVar[str] = ""

    @abstractmethod
    def forward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """Append the operations of a forward pass; ``at`` says of which layer."""

    @abstractmethod
    def backward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """Append those of the backward pass: gradients of queries, keys and values."""

    @abstractmethod
    def kept(self, rows: float, keys: float, nbytes: int, dropout: bool) -> Iterator[Kept]:
        """What stays until the backward pass beside queries, keys, values and the context.

        ``rows`` are queries of all heads and sequences, each of which meets so many keys, in elements of ``nbytes``.
        """

    @abstractmethod
    def ring_buffer(self, keys: float, values: float, parts: int) -> tuple[str, float]:
        """(what, bytes) of what keys and values of ``keys`` and ``values`` bytes come into, going around ``parts`` ranks."""
