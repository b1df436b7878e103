"""The mesh of ranks: named axes, arrays that broadcast over them, and the groups along them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError, suggestion
from .axes import AXES, DATA
from .mesh_text import EXAMPLE, mesh_text


@dataclass(frozen=True)
class Mesh:
    """Ranks as a grid with named axes, outermost first, as in JAX or PyTorch's DeviceMesh.

    Whatever differs from rank to rank is an array that broadcasts over :attr:`shape`: of size 1 along each axis on
    which ranks are alike. Rank numbers count in row-major order. An axis that is ``divided`` stands for its parts, outermost
    first, wherever axes are asked for; ranks along it are those along the parts together.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    divided: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of(cls, sizes: Mapping[str, int], flag: str = "--mesh") -> Mesh:
        """A mesh from axis sizes such as ``{"ep": 400, "dp": 240}``; raises :class:`InputError` for others than those known."""
        for axis, size in sizes.items():
            if axis not in AXES:
                raise InputError(f"{flag} {axis}: no such axis{suggestion(axis, AXES)}")
            if size < 1:
                raise InputError(f"{flag} {axis}={size}: an axis has at least one rank")
        if not sizes:
            raise InputError(f"{flag}: no axes; write for example {EXAMPLE}")
        return cls(tuple(sizes), tuple(sizes.values()))

    @property
    def ranks(self) -> int:
        """Ranks in all."""
        return prod(self.shape)

    @property
    def replicas(self) -> int:
        """Parts of the batch: data-parallel ways."""
        return self.size(*DATA)

    def gridded(self) -> Mesh:
        """The mesh with tp=q² as a grid row=q, col=q; raises :class:`InputError` where it is no square."""
        width = self.size("tp")
        side = isqrt(width)
        if side * side != width:
            raise InputError(
                f"--tensor 2d: tp={width} is no square; the grid is q x q, nearest {side * side} or {(side + 1) ** 2}",
                "--tensor 2d: tp is no square",
            )
        at = self.axes.index("tp")
        axes = (*self.axes[:at], "row", "col", *self.axes[at + 1 :])
        return Mesh(axes, (*self.shape[:at], side, side, *self.shape[at + 1 :]))

    def divide(self, axis: str, parts: Mapping[str, int]) -> Mesh:
        """The mesh with an axis as several, outermost first; their sizes multiply to its own, and ranks keep their numbers."""
        at = self.axes.index(axis)
        axes = (*self.axes[:at], *parts, *self.axes[at + 1 :])
        shape = (*self.shape[:at], *parts.values(), *self.shape[at + 1 :])
        return Mesh(axes, shape, (*self.divided, (axis, tuple(parts))))

    @cached_property
    def whole(self) -> Mesh:
        """The mesh with no axis divided."""
        return Mesh(tuple(self.sizes), tuple(self.sizes.values())) if self.divided else self

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Ranks along each axis, as users name axes."""
        of = {part: axis for axis, parts in self.divided for part in parts}
        found: dict[str, int] = {}
        for axis, length in zip(self.axes, self.shape, strict=True):
            name = of.get(axis, axis)
            found[name] = found.get(name, 1) * length
        return found

    def parts_of(self, axes: Iterable[str]) -> tuple[str, ...]:
        """These axes with the parts of those that are divided in their place; what the mesh lacks stays as it is."""
        if not self.divided:
            return tuple(axes)
        parts = dict(self.divided)
        return tuple(part for axis in axes for part in parts.get(axis, (axis,)))

    def having(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Those of these axes along which the mesh has more than one rank, in its order; the first of them where it has none.

        Of one that is divided the whole.
        """
        wanted = tuple(axes)
        found = tuple(axis for axis, length in self.sizes.items() if axis in wanted and length > 1)
        return found or wanted[:1]

    def along(self, axis: str, values: Sequence[float]) -> float | NDArray[np.float64]:
        """One value for each rank along an axis as an array that broadcasts over the mesh; a float where all are equal."""
        if len(set(values)) == 1:
            return float(values[0])
        place = self.axes.index(axis)
        return np.array(values, dtype=np.float64).reshape([-1 if at == place else 1 for at in range(len(self.axes))])

    def size(self, *axes: str) -> int:
        """Ranks of a group along these axes together; axes that the mesh lacks count one."""
        found = self._sizes.get(axes)
        if found is None:
            wanted = self.parts_of(axes)
            found = prod(length for axis, length in zip(self.axes, self.shape, strict=True) if axis in wanted)
            self._sizes[axes] = found
        return found

    @cached_property
    def _sizes(self) -> dict[tuple[str, ...], int]:
        """What :meth:`size` has found: it is asked for very often."""
        return {}

    def positions(self, axes: Iterable[str]) -> tuple[int, ...]:
        """The places of these axes in :attr:`axes`, those that the mesh lacks left out."""
        wanted = set(self.parts_of(axes))
        return tuple(place for place, axis in enumerate(self.axes) if axis in wanted)

    def groups(self, axes: Iterable[str]) -> NDArray[np.int64]:
        """The groups along these axes, ``[groups, size]``: rank numbers, members in row-major order."""
        along = self.positions(axes)
        numbers = np.arange(self.ranks).reshape(self.shape)
        last = np.moveaxis(numbers, along, range(len(self.shape) - len(along), len(self.shape)))
        return np.ascontiguousarray(last.reshape(-1, self.size(*(self.axes[a] for a in along))))

    def spread(self, values: NDArray[np.float64], axes: Iterable[str]) -> NDArray[np.float64]:
        """One value for each group along ``axes`` (in the order of :meth:`groups`) as an array that broadcasts over the mesh."""
        along = self.positions(axes)
        return values.reshape(tuple(1 if place in along else length for place, length in enumerate(self.shape)))

    def full(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``values`` broadcast to every rank, flat in rank order."""
        return np.broadcast_to(values, self.shape).reshape(-1)

    def __str__(self) -> str:
        """``ep=400,dp=240``, as the command line takes it."""
        return mesh_text(self.sizes)
