"""The group of a rank along some axes of the mesh: its communicator, and where its members stand for an algorithm."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.collectives import ALGORITHMS, Round, rounds
from ...workloads.mesh.mesh import Mesh
from ...workloads.mesh.placement import Layout
from ...workloads.model.number_types import travelling

if TYPE_CHECKING:
    from mpi4py import MPI

Index = NDArray[np.int64]

TAG = 7
"""Messages of one pair of ranks stay in order, and streams have communicators of their own: one tag will do."""


@dataclass(frozen=True, eq=False)
class Group:
    """The group of this rank along some axes.

    Members are numbered in row-major order of the axes, as the sub-communicator does. Algorithms number *positions*
    instead: members in the order of nodes, as a grid of ``outer`` supernodes with ``inner`` ranks in each (one row
    where the parts are unequal). ``member[position]`` leads from one to the other.
    """

    comm: MPI.Intracomm
    member: Index
    ranks: Index  # of the mesh, by member
    outer: int
    inner: int
    sent: NDArray[np.float64]  # bytes that this rank has sent to each rank of the mesh, counted here
    known: dict[tuple[str, str, int], Any] = field(
        default_factory=dict
    )  # what algorithms do on this rank, once worked out

    @classmethod
    def of(
        cls, cartesian: MPI.Cartcomm, mesh: Mesh, layout: Layout, axes: tuple[str, ...], sent: NDArray[np.float64]
    ) -> Group:
        """The group of the calling rank along ``axes``; a collective call over all ranks of the mesh."""
        comm = cartesian.Sub([axis in mesh.parts_of(axes) for axis in mesh.axes])
        numbers, groups = mesh.groups(axes), layout.groups(axes)
        mine = int(np.flatnonzero((numbers == cartesian.rank).any(axis=1))[0])
        member = np.array([int(np.flatnonzero(numbers[mine] == rank)[0]) for rank in groups[mine]])
        grid = layout.two_level(axes)
        outer, inner = (1, len(member)) if grid is None else grid.shape[1:]
        return cls(comm, member, numbers[mine], outer, inner, sent)

    @property
    def size(self) -> int:
        """Members."""
        return len(self.member)

    def from_root(self, root: int) -> Group:
        """The same members with positions counted from another one on, around the end: that one is position 0."""
        if root == 0:
            return self
        key = ("root", "", root)
        if key not in self.known:
            self.known[key] = replace(self, member=np.roll(self.member, -root), known={})
        turned: Group = self.known[key]
        return turned

    def send(self, buffer: NDArray[Any], member: int, tag: int = TAG) -> MPI.Request:
        """Begin to send an array to a member."""
        self.sent[self.ranks[member]] += buffer.nbytes
        return self.comm.Isend(travelling(buffer), member, tag)

    def receive(self, buffer: NDArray[Any], member: int, tag: int = TAG) -> MPI.Request:
        """Begin to receive an array from a member."""
        return self.comm.Irecv(travelling(buffer), member, tag)

    @cached_property
    def me(self) -> int:
        """The number of this rank as a member."""
        return int(self.comm.rank)

    @cached_property
    def position_of(self) -> Index:
        """The position of each member."""
        return np.argsort(self.member)

    @cached_property
    def position(self) -> int:
        """The position of this rank."""
        return int(self.position_of[self.me])

    def rounds(self, operation: str, algorithm: str) -> list[Round]:
        """The rounds of an algorithm on this group; raises ``InputError`` where it cannot run."""
        return rounds(operation, algorithm, self.outer, self.inner)

    def cells(self, operation: str, algorithm: str) -> int:
        """Into how many equal cells an algorithm cuts a vector: one a rank on a grid, else the finest cut of any round."""
        if ALGORITHMS[operation][algorithm].grid:
            return self.size
        return lcm(1, *(each.parts(self.size) for each in self.rounds(operation, algorithm)))

    def home(self, operation: str, algorithm: str) -> int:
        """The cell that this rank ends with in a reduce-scatter, and starts with in an all-gather.

        On a grid cells are numbered inner first, so that all cells of one inner number lie next to each other.
        """
        return self.home_of(self.position, operation, algorithm)

    def home_of(self, position: int, operation: str, algorithm: str) -> int:
        """The same for another position."""
        if ALGORITHMS[operation][algorithm].grid:
            outer_at, inner_at = divmod(position, self.inner)
            return inner_at * self.outer + outer_at
        return position

    def scope(self, each: Round) -> tuple[int, int]:
        """(size, this rank's position) in the scope of a round."""
        outer_at, inner_at = divmod(self.position, self.inner)
        return {"group": (self.size, self.position), "inner": (self.inner, inner_at), "outer": (self.outer, outer_at)}[
            each.scope
        ]

    def at(self, each: Round, position: int) -> int:
        """The member at another position in the scope of a round."""
        outer_at, inner_at = divmod(self.position, self.inner)
        if each.scope == "inner":
            position = outer_at * self.inner + position
        elif each.scope == "outer":
            position = position * self.inner + inner_at
        return int(self.member[position])
