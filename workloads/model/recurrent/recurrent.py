"""What a recurrent part of a layer is: it mixes tokens through a state of fixed size instead of scores of all pairs.

A part says everything about itself as data, for tokens of one sequence: its weights, and the steps of its forward pass with what
each of them keeps. Parameters, FLOPs, the lowering's operators forward and backward, memory and the planner follow from that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from ....hardware.records import Record

Operand = Literal["in", "gates", "convolution", "inner", "steps", "scan", "chunks", "states", "gate", "out"]
"""What a step is about: tasks and labels go by it."""


@dataclass(frozen=True)
class Projection:
    """A product of all tokens with a weight [``rows``, ``columns``], of which tensor parallelism cuts one side, or none.

    ``summed``: it is cut by rows, and others need the sum of what ranks have, before the part's end. ``keeps`` elements of its
    input (a token) stay for the backward pass, unless a step before has kept them; ``again``: it is run again there instead.
    """

    operand: Operand
    rows: int
    columns: int
    cut: Literal["column", "row", "none"]
    keeps: float = 0.0
    summed: bool = False
    again: bool = False

    @property
    def flops(self) -> float:
        """FLOPs a token."""
        return 2.0 * self.rows * self.columns


@dataclass(frozen=True)
class TokenPass:
    """An operator bound by memory, which passes over ``elements`` a token (cut over tp): reads and writes so many for each.

    It computes ``each`` FLOPs for an element; ``mathematical``: FLOPs that count as the model's.
    """

    operand: Operand
    elements: float
    reads: float
    writes: float
    each: float
    keeps: float = 0.0
    again: bool = False
    mathematical: bool = False

    @property
    def flops(self) -> float:
        """FLOPs a token, as far as they are the model's."""
        return self.elements * self.each if self.mathematical else 0.0


@dataclass(frozen=True)
class ChunkProducts:
    """``count`` products [m, k] x [k, n] for each chunk of a sequence and all heads (cut over tp).

    ``again``: what comes of it is large, and is worked out again in the backward pass.
    """

    operand: Operand
    chunk: int
    m: int
    n: int
    k: float
    count: int
    keeps: float = 0.0
    again: bool = False

    @property
    def flops(self) -> float:
        """FLOPs a token."""
        return 2.0 * self.m * self.n * self.k * self.count / self.chunk


Step = Projection | TokenPass | ChunkProducts


class Recurrent(Record, ABC):
    """A recurrent part, as a table of a model file has it under ``recurrent.NAME``."""

    kind: str

    @abstractmethod
    def weights(self, hidden: int) -> list[tuple[int, int]]:
        """(rows, columns) of its weights; a vector has one row."""

    @abstractmethod
    def norms(self, hidden: int) -> list[int]:
        """Elements of norms within it."""

    @abstractmethod
    def steps(self, hidden: int) -> tuple[Step, ...]:
        """Its forward pass, the last product included; norm and residual around it are those of any half of a layer."""

    @abstractmethod
    def state(self, hidden: int) -> float:
        """Elements that inference keeps of a sequence in place of keys and values."""

    @abstractmethod
    def divided(self, hidden: int) -> list[tuple[str, int]]:
        """(what, size) of what tensor parallelism has to divide."""

    def parameters(self, hidden: int) -> int:
        """Elements of its weights; norms apart."""
        return sum(rows * columns for rows, columns in self.weights(hidden))

    def flops(self, hidden: int) -> float:
        """FLOPs of a forward pass a token: products with weights and its own."""
        return sum(step.flops for step in self.steps(hidden))
