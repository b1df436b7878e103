"""Carries the exchanges of a Schedule: by the rounds of their algorithms, or by the MPI library's own collectives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...workloads.collectives import check
from ...workloads.lowering.unroll import ARRIVALS, DEPARTURES
from ...workloads.schedule.operation import Operation
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import COUNT, Exchange, PipelineWork
from . import library_collectives as native
from . import rounds
from .groups import Group
from .rounds import Buffer, Combine, Index, Playing, Requests

if TYPE_CHECKING:
    from mpi4py import MPI


class Transport:
    """The groups of a rank along all axes that a schedule exchanges over.

    Each stream has communicators of its own, so that messages of streams that run beside each other never meet.
    """

    def __init__(self, comm: MPI.Intracomm, schedule: Schedule, library: bool) -> None:
        mesh = schedule.mesh
        cartesian = comm.Create_cart(list(mesh.shape), reorder=False)
        self.library = library
        self.sent = np.zeros(mesh.ranks)  # bytes to each rank of the mesh
        self.carried: defaultdict[str, float] = defaultdict(float)  # payloads of each stream's exchanges
        self._groups: dict[tuple[str, tuple[str, ...]], Group] = {}
        for operation in every_operation(schedule):
            if isinstance(operation.work, Exchange):
                key = (operation.stream, operation.work.axes)
                if key not in self._groups:
                    self._groups[key] = Group.of(cartesian, mesh, schedule.layout, operation.work.axes, self.sent)
                # Even where ranks carry alike, what goes from one to another differs from pair to pair.
                uneven = operation.work.operation == "all-to-all" and operation.work.element != COUNT
                size = self._groups[key].size
                check(operation.work.operation, operation.work.algorithm, size, uneven)
                if operation.work.root >= size:
                    raise InputError(f"schedule: {operation.name} has root {operation.work.root} in groups of {size}")
            if isinstance(operation.work, PipelineWork) and operation.work.activations is not None:
                axes = operation.work.activations.axes
                between = Group.of(cartesian, mesh, schedule.layout, axes, self.sent)
                self._groups[ARRIVALS, axes] = self._groups[DEPARTURES, axes] = between

    def along(self, axes: tuple[str, ...]) -> Group | None:
        """Any group of this rank along these axes; None where nothing is exchanged over them."""
        return next((group for (_, over), group in self._groups.items() if over == axes), None)

    def group(self, stream: str, exchange: Exchange) -> Group:
        """The group in which this rank takes part in an exchange."""
        return self._groups[stream, exchange.axes]

    def cells(self, stream: str, exchange: Exchange) -> int:
        """Into how many cells the exchange cuts a vector."""
        group = self.group(stream, exchange)
        return group.size if self.library else group.cells(exchange.operation, exchange.algorithm)

    def home(self, stream: str, exchange: Exchange) -> int:
        """The cell that this rank ends with in a reduce-scatter and starts with in an all-gather."""
        group = self.group(stream, exchange)
        return group.me if self.library else group.home(exchange.operation, exchange.algorithm)

    def play(self, stream: str, exchange: Exchange, cells: Buffer, combine: Combine = np.add) -> Playing:
        """An exchange of a vector, in place; cells that are no sums are combined along their last dimension."""
        group = self.group(stream, exchange).from_root(exchange.root)
        self.carried[stream] += cells.nbytes
        if self.library:
            return native.play(group, exchange.operation, exchange.algorithm, cells, combine)
        return rounds.play(group, exchange.operation, exchange.algorithm, cells, combine)

    def whole(self, stream: str, exchange: Exchange, vector: NDArray[Any]) -> Generator[Requests, None, NDArray[Any]]:
        """An all-reduce of a short vector, or an all-gather of one number a member; numbers in the order of members."""
        group, count = self.group(stream, exchange), self.cells(stream, exchange)
        if exchange.operation == "all-gather":
            cells = np.zeros((count, 1), dtype=vector.dtype)
            cells[self.home(stream, exchange)] = vector[group.me]
            yield from self.play(stream, exchange, cells)
            gathered: NDArray[Any] = cells[self.homes(stream, exchange), 0]
            return gathered
        cells = np.zeros((count, -(-len(vector) // count)), dtype=vector.dtype)
        cells.reshape(-1)[: len(vector)] = vector
        yield from self.play(stream, exchange, cells)
        return cells.reshape(-1)[: len(vector)]

    def homes(self, stream: str, exchange: Exchange) -> Index:
        """The cell of every member: where a reduce-scatter leaves its part, and an all-gather takes it from."""
        group = self.group(stream, exchange)
        if self.library:
            return np.arange(group.size)
        return np.array([group.home_of(int(at), exchange.operation, exchange.algorithm) for at in group.position_of])

    def exchange(
        self, stream: str, exchange: Exchange, send: Buffer, out: Index, back: Index, most: int
    ) -> Generator[Requests, None, Buffer]:
        """An all-to-all-v of rows."""
        group = self.group(stream, exchange)
        self.carried[stream] += send.nbytes
        if self.library:
            return native.exchange(group, send, out, back)
        return rounds.exchange(group, exchange.algorithm, send, out, back, most)


def every_operation(schedule: Schedule) -> Iterable[Operation]:
    """All operations, those of a pipeline's blocks included: the same on every rank, whatever its stage does of them."""
    for operation in schedule.operations:
        yield operation
        if isinstance(operation.work, PipelineWork):
            for block in operation.work.blocks:
                yield from block
