"""What travels at a step: which blocks of its payload a rank sends.

A payload is cut into ``parts`` equal blocks, numbered from 0, and a round sends some of them. In a scope of ``size`` ranks
block d is the one that belongs to position d, unless a class says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from .patterns import Index, core_number, power_within

Numbering = Literal["part", "offset"]


class Blocks(ABC):
    """The blocks of one round."""

    numbering: ClassVar[Numbering] = "part"

    def parts(self, size: int) -> int:
        """Into how many equal blocks the payload is cut."""
        return size

    @abstractmethod
    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """The blocks that ``position`` sends to ``partner`` at a step, each once."""


@dataclass(frozen=True)
class NoBlocks(Blocks):
    """A message without content."""

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """None."""
        return np.arange(0)


@dataclass(frozen=True)
class Whole(Blocks):
    """The payload in one block."""

    def parts(self, size: int) -> int:
        """One."""
        return 1

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """The one."""
        return np.arange(1)


@dataclass(frozen=True)
class ForPartner(Blocks):
    """The block that belongs to the partner."""

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """The partner's."""
        return np.array([partner])


@dataclass(frozen=True)
class Cyclic(Blocks):
    """``count`` blocks from position + first + stride · step on, mod size."""

    first: int
    stride: int = 0
    count: int = 1

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """In a row, around the end."""
        return (position + self.first + self.stride * step + np.arange(self.count)) % size


@dataclass(frozen=True)
class Aligned(Blocks):
    """The aligned run of ``length`` blocks around the partner's, or around the sender's own."""

    length: int
    own: bool

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """In a row, from a multiple of the length."""
        start = (position if self.own else partner) // self.length * self.length
        return np.arange(start, start + self.length)


@dataclass(frozen=True)
class Halved(Blocks):
    """The part of a vector that the sender, or its partner, keeps after ``halvings``, nearest partner first.

    The vector is cut into as many blocks as the core has ranks. Bit k of a core number picks the lower or upper half at
    the (k + 1)-th halving, so that parts stay in a row in memory while partners move apart.
    """

    halvings: int
    own: bool

    def parts(self, size: int) -> int:
        """One block for each rank of the core."""
        return power_within(size)

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """In a row."""
        number = int(core_number(np.asarray(position if self.own else partner), size))
        start, length = 0, self.parts(size)
        for bit in range(self.halvings):
            length //= 2
            start += length * (number >> bit & 1)
        return np.arange(start, start + length)


@dataclass(frozen=True)
class Chunk(Blocks):
    """One of ``chunks`` equal chunks that go along a line: the start of the line sends number ``first`` + step.

    Each further position sends the one before that, which has just come to it; ``down`` as of :class:`~.patterns.Line`.
    """

    first: int
    chunks: int
    down: bool

    def parts(self, size: int) -> int:
        """The chunks."""
        return self.chunks

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """The one."""
        passed = position if self.down else size - 1 - position
        return np.array([self.first + step - passed])


@dataclass(frozen=True)
class Subtree(Blocks):
    """The blocks of the partner and of the ``length`` - 1 positions after it, as far as there are any."""

    length: int

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """In a row."""
        return np.arange(partner, min(partner + self.length, size))


@dataclass(frozen=True)
class OffsetBit(Blocks):
    """Blocks of an all-to-all by their offset, (destination - origin) mod size: those whose offset has a bit set.

    At every step a rank holds one block of each offset; what comes takes the places of what went.
    """

    bit: int
    numbering: ClassVar[Numbering] = "offset"

    def of(self, position: int, partner: int, step: int, size: int) -> Index:
        """The offsets."""
        offsets = np.arange(size)
        return offsets[offsets & self.bit > 0]

    def count(self, size: int) -> int:
        """How many offsets below ``size`` have the bit."""
        return size // (2 * self.bit) * self.bit + max(0, size % (2 * self.bit) - self.bit)
