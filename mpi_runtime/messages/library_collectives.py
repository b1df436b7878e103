"""The MPI library's own collectives, as opaque ones: no algorithm of ours, whatever the library chooses."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.model.number_types import travelling
from .groups import TAG, Group
from .rounds import Buffer, Combine, Index, Playing, Requests

if TYPE_CHECKING:
    from mpi4py import MPI


def play(group: Group, operation: str, algorithm: str, cells: Buffer, combine: Combine = np.add) -> Playing:
    """A collective on a vector, in place, as :func:`~.rounds.play` does it; cells are in members' order.

    For a reduce-scatter's result and an all-gather's input the cell of the rank's own member number counts. The library
    chooses the algorithm; only of a shift ours is the direction.
    """
    from mpi4py import MPI

    comm = group.comm
    match operation:
        case "all-reduce":
            with _sums(cells, combine) as (of, total):
                yield [comm.Iallreduce(MPI.IN_PLACE, of(cells), total)]
        case "reduce-scatter":
            mine = np.empty_like(cells[group.me])
            with _sums(cells, combine) as (of, total):
                yield [comm.Ireduce_scatter_block(of(cells, group.size), of(mine), total)]
            cells[group.me] = mine
        case "all-gather":
            yield [comm.Iallgather(travelling(cells[group.me].copy()), travelling(cells))]
        case "broadcast":
            yield [comm.Ibcast(travelling(cells), int(group.member[0]))]
        case "reduce":
            root = int(group.member[0])
            with _sums(cells, combine) as (of, total):
                yield [comm.Ireduce(MPI.IN_PLACE if group.me == root else of(cells), of(cells), total, root)]
        case "shift":
            onward = 1 if algorithm == "next" else -1
            target, source = (int(group.member[(group.position + by) % group.size]) for by in (onward, -onward))
            arriving = np.empty_like(cells)
            yield [comm.Irecv(travelling(arriving), source, TAG), comm.Isend(travelling(cells), target, TAG)]
            cells[...] = arriving
        case "barrier":
            yield [comm.Ibarrier()]
        case _:
            raise ValueError(f"{operation} is no collective on a vector")


@contextmanager
def _sums(cells: Buffer, combine: Combine) -> Iterator[tuple[Callable[..., Any], MPI.Op]]:
    """How a library is told what to send, and the operation on it: its own sum, or a function of ours.

    That is for what is no sum, where the last dimension of ``cells`` is one element of the message, and for numbers of two bytes,
    which no library has to know how to add. What is told may be cut into equal ``blocks``, one for each rank.
    """
    from mpi4py import MPI

    if combine is np.add and cells.itemsize > 2:
        yield lambda values, blocks=1: values, MPI.SUM
        return
    width = 1 if combine is np.add else cells.shape[-1]

    def join(one: Any, other: Any, datatype: MPI.Datatype) -> None:
        here, there = (
            np.frombuffer(each, dtype=np.uint8).view(cells.dtype).reshape(-1, width) for each in (other, one)
        )
        here[...] = combine(here, there)

    element = MPI.BYTE.Create_contiguous(width * cells.itemsize).Commit()
    operation = MPI.Op.Create(join, commute=True)
    yield (
        lambda values, blocks=1: [values.reshape(-1).view(np.uint8), values.size // width // blocks, element],
        operation,
    )
    operation.Free()
    element.Free()


def exchange(group: Group, send: Buffer, out: Index, back: Index) -> Generator[Requests, None, Buffer]:
    """An all-to-all-v of rows, in and out as :func:`athanor.mpi_runtime.messages.rounds.exchange` has them."""
    width = int(np.prod(send.shape[1:], dtype=np.int64))
    result: NDArray[Any] = np.empty((int(back.sum()), *send.shape[1:]), dtype=send.dtype)
    yield [
        group.comm.Ialltoallv(
            [travelling(np.ascontiguousarray(send)), (out * width).tolist()],
            [travelling(result), (back * width).tolist()],
        )
    ]
    return result
