"""Who sends to whom at a step: symbolic patterns that each rank evaluates for itself.

A pattern speaks of positions 0 … size - 1 in a scope. It takes an array of them (int64, any shape) and gives the position
that each sends to, or receives from; -1 stands for none. Nothing enumerates pairs: at 96,000 ranks a pattern is still a few
numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Symmetry = Literal["any", "rotation", "xor", "none"]


class Pattern(ABC):
    """One target, or none, for every position at every step.

    ``symmetry`` says which relabelling of positions leaves the pattern as it is: ``rotation`` by any h, position ->
    (position + h) mod size; ``xor`` with any m, position -> position XOR m, where the size is a power of two; ``any`` of
    them, or ``none``.
    """

    symmetry: ClassVar[Symmetry] = "none"

    @property
    def repeats(self) -> bool:
        """Whether targets are the same at every step of a round."""
        return True

    @abstractmethod
    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The position that each of ``position`` sends to, -1 where it sends nothing; same shape."""

    @abstractmethod
    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The position that each of ``position`` receives from, -1 where it receives nothing; same shape."""


@dataclass(frozen=True)
class All(Pattern):
    """Every rank sends to every other at once. There is no one target: ask :attr:`Round.everyone` first."""

    symmetry: ClassVar[Symmetry] = "any"

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """Raises ``TypeError``."""
        raise TypeError("every rank sends to every other at once: no one target")

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """Raises ``TypeError``."""
        raise TypeError("every rank receives from every other at once: no one source")


@dataclass(frozen=True)
class Shift(Pattern):
    """Around a ring: at each step to position + first + stride · step, mod size."""

    first: int
    stride: int = 0
    symmetry: ClassVar[Symmetry] = "rotation"

    @property
    def repeats(self) -> bool:
        """Whether the distance stays the same."""
        return self.stride == 0

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """So many positions further."""
        return _other(position, (position + self.first + self.stride * step) % size)

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """So many positions back."""
        return _other(position, (position - self.first - self.stride * step) % size)


@dataclass(frozen=True)
class Xor(Pattern):
    """Pairs across a hypercube: at each step position XOR (first + stride · step). For sizes that are a power of two."""

    first: int
    stride: int = 0
    symmetry: ClassVar[Symmetry] = "xor"

    @property
    def repeats(self) -> bool:
        """Whether the pairs stay the same."""
        return self.stride == 0

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The other of the pair."""
        return _other(position, position ^ np.int64(self.first + self.stride * step))

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The other of the pair."""
        return self.targets(position, size, step)


@dataclass(frozen=True)
class Fold(Pattern):
    """Brings a size down to a power of two: of the first 2 (size - power), every even position sends to the one after it.

    Who is left is the core (:func:`core_number`). ``outward`` is the way back, from the odd to the even (Rabenseifner 2004;
    Thakur, Rabenseifner and Gropp 2005).
    """

    outward: bool

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The neighbour of the pair, for who sends."""
        sends = (position < 2 * (size - power_within(size))) & (position % 2 == int(self.outward))
        return np.where(sends, position ^ 1, -1)

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The neighbour of the pair, for who receives."""
        return replace(self, outward=not self.outward).targets(position, size, step)


@dataclass(frozen=True)
class CoreXor(Pattern):
    """:class:`Xor` among the core that a :class:`Fold` leaves, by core numbers; the others wait."""

    mask: int

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The other of the pair."""
        core = core_number(position, size)
        return np.where(core >= 0, core_position(core ^ np.int64(self.mask), size), -1)

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The other of the pair."""
        return self.targets(position, size, step)


@dataclass(frozen=True)
class BinaryTree(Pattern):
    """Edges of a binary tree: between nodes of one height and their parents, one side at a time.

    Positions stand in order, so that neighbours in the tree are neighbours in the machine. A node's height is its number
    of trailing zero bits; 0 is the root. ``left`` takes the children that stand before their parent, else those behind it.
    ``down`` sends from parents to children, else from children to parents (Sanders, Speck and Träff 2009; NCCL).
    """

    height: int
    left: bool
    down: bool

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The parent, or the child on this side."""
        if not self.down:
            return np.where(self._is_child(position, size), _parent(position, size), -1)
        child = position - (1 << self.height) if self.left else position + (1 << self.height)
        ours = self._is_child(child, size) & (_parent(child, size) == position)
        return np.where(ours, child, -1)

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The way back."""
        return replace(self, down=not self.down).targets(position, size, step)

    def _is_child(self, position: Index, size: int) -> NDArray[np.bool_]:
        """Whether a position is a node of this height on this side of its parent."""
        node = (position > 0) & (position < size) & (position & -position == 1 << self.height)
        return np.asarray(node & ((_parent(position, size) > position) == self.left))


@dataclass(frozen=True)
class Binomial(Pattern):
    """Edges of a binomial tree of root 0: from each multiple of 2 · distance to the position ``distance`` behind it.

    Only where the child and the ``subtree`` - 1 positions after it are there; ``down`` from the root, else towards it.
    """

    distance: int
    down: bool
    subtree: int = 1

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The child at this distance, or the parent."""
        if self.down:
            sends = (position % (2 * self.distance) == 0) & (position + self.distance + self.subtree <= size)
            return np.where(sends, position + self.distance, -1)
        sends = (position % (2 * self.distance) == self.distance) & (position + self.subtree <= size)
        return np.where(sends, position - self.distance, -1)

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The way back."""
        return replace(self, down=not self.down).targets(position, size, step)


@dataclass(frozen=True)
class Line(Pattern):
    """Along a line: each position to the next one, the last to none; ``down`` from position 0 on, else from the last to it.

    While the line ``fills``, one more position sends at each step, from its start on; then it is ``full`` and all send; while it
    ``drains``, one fewer does, from its start on.
    """

    stage: Literal["fills", "full", "drains"]
    down: bool

    @property
    def repeats(self) -> bool:
        """Whether all positions send, as they do again at the next step."""
        return self.stage == "full"

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The next one on the line, for who sends."""
        passed = position if self.down else size - 1 - position
        sends = passed < size - 1
        if self.stage == "fills":
            sends = sends & (passed <= step)
        elif self.stage == "drains":
            sends = sends & (passed > step)
        return np.where(sends, position + (1 if self.down else -1), -1)

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The one before on the line, where that sends."""
        before = position - (1 if self.down else -1)
        there = (before >= 0) & (before < size)
        return np.where(there & (self.targets(before, size, step) == position), before, -1)


@dataclass(frozen=True)
class Single(Pattern):
    """One message, from ``source`` to ``target``."""

    source: int
    target: int

    def targets(self, position: Index, size: int, step: Index | int) -> Index:
        """The target, for the source."""
        return np.where(position == self.source, np.int64(self.target), -1)

    def sources(self, position: Index, size: int, step: Index | int) -> Index:
        """The source, for the target."""
        return np.where(position == self.target, np.int64(self.source), -1)


def power_within(size: int) -> int:
    """The largest power of two that is no larger than ``size``."""
    return 1 << (size.bit_length() - 1)


def powers_below(limit: int) -> Iterator[int]:
    """1, 2, 4, … below ``limit``."""
    power = 1
    while power < limit:
        yield power
        power *= 2


def core_number(position: Index, size: int) -> Index:
    """The number in the core that a fold leaves, 0 … power - 1; -1 for positions folded away. Order is kept."""
    folded = size - power_within(size)
    return np.where(position >= 2 * folded, position - folded, np.where(position % 2 == 1, position // 2, -1))


def core_position(number: Index, size: int) -> Index:
    """The position of a number in the core: the inverse of :func:`core_number`."""
    folded = size - power_within(size)
    return np.where(number < folded, 2 * number + 1, number + folded)


def _other(position: Index, target: Index) -> Index:
    """The target, -1 where it is the sender itself."""
    return np.where(target == position, np.int64(-1), target)


def _parent(position: Index, size: int) -> Index:
    """The parent in the in-order tree: the lowest bit moves up by one, or is cleared where that leaves the group."""
    lowest = position & -position
    above = (position ^ lowest) | (lowest << 1)
    return np.where(above < size, above, position ^ lowest)
