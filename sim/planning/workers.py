"""Who ranks meshes: this process, several on this computer, or the ranks of an MPI job."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from .estimate import Estimator
from .ranking import RankedPlans, rank
from .space import Space

Task = tuple[Space, dict[str, int], int]
"""A space, one of its meshes, and how many plans to keep."""


class Workers(Protocol):
    """Runs tasks in any order."""

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(number of a task, its result), each as it is done."""
        ...


_estimators: dict[str, Estimator] = {}


def rank_mesh(task: Task) -> RankedPlans:
    """The plans of a mesh; what was worked out for one mesh of a question is known for the next."""
    space, mesh, keep = task
    name = space.question.digest
    if name not in _estimators:
        _estimators.clear()
        _estimators[name] = Estimator(space.question)
    return rank(_estimators[name], space, mesh, keep)


class Here:
    """One after another in this process."""

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As they are done."""
        for number, task in enumerate(tasks):
            yield number, call(task)


class Processes:
    """On several cores of this computer."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As they are done."""
        yield from self.pool.imap_unordered(_numbered, [(number, call, task) for number, task in enumerate(tasks)])


class Ranks:
    """On the ranks of an MPI job, the first of which hands out the tasks."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As they are done."""
        yield from self.executor.map(_numbered, [(n, call, task) for n, task in enumerate(tasks)], unordered=True)


def _numbered(job: tuple[int, Callable[[Any], Any], Any]) -> tuple[int, Any]:
    number, call, task = job
    return number, call(task)


@contextmanager
def workers(jobs: int | None = None, mpi: bool = False) -> Iterator[Workers | None]:
    """Workers for a search: ``jobs`` processes (by default one a core), or the ranks of this MPI job.

    In an MPI job all ranks but the first get None, when there is nothing left to do.
    """
    if mpi:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor

        if MPI.COMM_WORLD.size > 1:
            with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
                yield None if executor is None else Ranks(executor)
            return
    count = jobs or cores()
    if count == 1:
        yield Here()
        return
    from multiprocessing import get_context

    with get_context("spawn").Pool(count, initializer=_leave_interrupts) as pool:
        yield Processes(pool)


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _leave_interrupts() -> None:
    """Ctrl-C goes to the process that the user started; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
