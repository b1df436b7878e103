"""The MPI library's own collectives, as opaque ones: no algorithm of ours, whatever the library chooses."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
            if combine is np.add:
                yield [comm.Iallreduce(MPI.IN_PLACE, cells)]
            else:
                yield from _combined(comm, cells, combine)
        case "reduce-scatter":
            mine = np.empty_like(cells[group.me])
            yield [comm.Ireduce_scatter_block(cells, mine)]
            cells[group.me] = mine
        case "all-gather":
            yield [comm.Iallgather(cells[group.me].copy(), cells)]
        case "broadcast":
            yield [comm.Ibcast(cells, int(group.member[0]))]
        case "reduce":
            root = int(group.member[0])
            yield [comm.Ireduce(MPI.IN_PLACE if group.me == root else cells, cells, root=root)]
        case "shift":
            onward = 1 if algorithm == "next" else -1
            target, source = (int(group.member[(group.position + by) % group.size]) for by in (onward, -onward))
            arriving = np.empty_like(cells)
            yield [comm.Irecv(arriving, source, TAG), comm.Isend(cells, target, TAG)]
            cells[...] = arriving
        case "barrier":
            yield [comm.Ibarrier()]
        case _:
            raise ValueError(f"{operation} is no collective on a vector")


def _combined(comm: MPI.Intracomm, cells: Buffer, combine: Combine) -> Playing:
    """An all-reduce by a function of ours; the last dimension of ``cells`` is one element of the message."""
    from mpi4py import MPI

    width = cells.shape[-1]

    def join(one: Any, other: Any, datatype: MPI.Datatype) -> None:
        here, there = (np.frombuffer(each, dtype=cells.dtype).reshape(-1, width) for each in (other, one))
        here[...] = combine(here, there)

    element = MPI.Datatype.fromcode(cells.dtype.char).Create_contiguous(width).Commit()
    operation = MPI.Op.Create(join, commute=True)
    yield [comm.Iallreduce(MPI.IN_PLACE, [cells, cells.size // width, element], operation)]
    operation.Free()
    element.Free()


def exchange(group: Group, send: Buffer, out: Index, back: Index) -> Generator[Requests, None, Buffer]:
    """An all-to-all-v of rows, in and out as :func:`athanor.mpi_runtime.messages.rounds.exchange` has them."""
    width = int(np.prod(send.shape[1:], dtype=np.int64))
    result: NDArray[Any] = np.empty((int(back.sum()), *send.shape[1:]), dtype=send.dtype)
    yield [
        group.comm.Ialltoallv([np.ascontiguousarray(send), (out * width).tolist()], [result, (back * width).tolist()])
    ]
    return result
