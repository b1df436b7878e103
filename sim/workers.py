"""Who works on tasks that do not depend on each other: this process, several on this computer, or the ranks of an MPI job."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import GeneratorType
from typing import Any, Protocol

from ..hardware.cores import cores
from ..hardware.errors import AthanorError
from ..hardware.own_code import keep_reason

QUICK = 1.0
"""Seconds that processes need to start: what takes no longer is done here."""


class WorkerLost(AthanorError):
    """A process that worked on a task has ended without an answer."""

    exit_status = 1


class Workers(Protocol):
    """Runs tasks in any order. A call that is a generator has many results, each of which comes as it is made."""

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(number of a task, its result), each as it is done. What a call raises is raised here."""
        ...


class Here:
    """One after another in this process."""

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As they are done."""
        for number, task in enumerate(tasks):
            for result in _results(call, task):
                yield number, result


class Processes:
    """On several cores of this computer.

    Tasks are done here until ``patience`` seconds have passed, so that nothing is started for a few quick ones. Then processes
    start, no more than there are tasks left, and stay for later tasks until :meth:`close`. Call and tasks have to be such as can
    be pickled. Raises :class:`WorkerLost` where a process is ended from outside, for instance for want of memory.
    """

    def __init__(self, count: int, patience: float = QUICK) -> None:
        self.count = count
        self._left = patience
        self._crew: dict[Connection, BaseProcess] = {}

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As they are done; who stops listening ends what is under way."""
        waiting = deque(enumerate(tasks))
        while waiting and (self._left > 0 or (len(waiting) == 1 and not self._crew)):
            number, task = waiting.popleft()
            begin = time.perf_counter()
            for result in _results(call, task):
                yield number, result
            self._left -= time.perf_counter() - begin
        if waiting:
            yield from self._shared(call, waiting)

    def _shared(self, call: Callable[[Any], Any], waiting: deque[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Hand out tasks, one at a time to each process."""
        while len(self._crew) < min(self.count, len(waiting)):
            self._start()
        idle, busy = list(self._crew), dict[Connection, int]()
        failed: tuple[int, Exception] | None = None
        try:
            while waiting or (busy and (failed is None or min(busy.values()) < failed[0])):
                while waiting and idle:
                    number, task = waiting.popleft()
                    busy[idle[0]] = number
                    self._send(idle.pop(0), (call, task))
                for pipe in _ready(busy):
                    ended, found = self._received(pipe)
                    if not ended:
                        yield busy[pipe], found
                        continue
                    idle.append(pipe)
                    number = busy.pop(pipe)
                    if found is not None and (failed is None or number < failed[0]):
                        failed = number, found  # the same one as without processes: the first in the order of tasks
                        waiting.clear()
            if failed:
                raise failed[1]
        finally:
            if busy:
                self.close()

    def _start(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _interrupts_held():
            process.start()
        theirs.close()
        self._crew[ours] = process

    def _send(self, pipe: Connection, job: tuple[Callable[[Any], Any], Any]) -> None:
        try:
            pipe.send(job)
        except (BrokenPipeError, ConnectionResetError):
            raise self._lost(pipe) from None

    def _received(self, pipe: Connection) -> tuple[bool, Any]:
        """Whether a task has ended, and a result or what ended it."""
        try:
            ended, found = pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._lost(pipe) from None
        return bool(ended), found

    def _lost(self, pipe: Connection) -> WorkerLost:
        process = self._crew[pipe]
        process.join(QUICK)
        return WorkerLost(
            f"one of {len(self._crew)} processes was ended from outside (exit code {process.exitcode}), perhaps for want of"
            " memory: --jobs 1 needs least"
        )

    def close(self) -> None:
        """End the processes."""
        for pipe, process in self._crew.items():
            pipe.close()
            process.terminate()
        for process in self._crew.values():
            process.join()
        self._crew.clear()


class Ranks:
    """On the ranks of an MPI job, the first of which hands out the tasks."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def results(self, call: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As they are done."""
        jobs = [(number, call, task) for number, task in enumerate(tasks)]
        for number, found in self.executor.map(_numbered, jobs, unordered=True):
            for result in found:
                yield number, result


@contextmanager
def workers(jobs: int | None = None, mpi: bool = False, patience: float = QUICK) -> Iterator[Workers | None]:
    """Workers for a study: ``jobs`` processes (by default one a core), or the ranks of this MPI job.

    In an MPI job all ranks but the first get None, when there is nothing left to do. ``patience`` is that of :class:`Processes`.
    """
    if mpi:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor

        if MPI.COMM_WORLD.size > 1:
            with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
                yield None if executor is None else Ranks(executor)
            return
    with on_cores(jobs, patience) as crew:
        yield crew


@contextmanager
def on_cores(jobs: int | None = None, patience: float = QUICK) -> Iterator[Workers]:
    """Workers on this computer: ``jobs`` processes, by default one a core."""
    count = jobs or cores()
    if count == 1:
        yield Here()
        return
    crew = Processes(count, patience)
    try:
        yield crew
    finally:
        crew.close()


def _ready(pipes: Iterable[Connection]) -> list[Connection]:
    """Those of some pipes, of which at least one is waited for, that have something to tell."""
    known = list(pipes)
    heard = wait(known)
    return [pipe for pipe in known if pipe in heard]


def _results(call: Callable[[Any], Any], task: Any) -> Iterator[Any]:
    """The result of a call, or each of a generator's."""
    found = call(task)
    if isinstance(found, GeneratorType):
        yield from found
    else:
        yield found


def _numbered(job: tuple[int, Callable[[Any], Any], Any]) -> tuple[int, list[Any]]:
    number, call, task = job
    return number, list(_results(call, task))


def _serve(pipe: Connection) -> None:
    """Work on what comes through a pipe, until the process that started this one has closed it or is gone."""
    _leave_interrupts()
    while True:
        try:
            call, task = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        ending: Exception | None = None
        try:
            for result in _results(call, task):
                pipe.send((False, result))
        except BrokenPipeError:
            return
        except Exception as reason:  # raised again where the task came from
            ending = _portable(reason)
        pipe.send((True, ending))


def _portable(reason: Exception) -> Exception:
    """An exception as another process can have it, with what its traceback said."""
    import pickle

    keep_reason(reason)
    try:
        pickle.loads(pickle.dumps(reason))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(reason)))
    reason.add_note("".join(traceback.format_exception(reason)))
    return reason


def _leave_interrupts() -> None:
    """Ctrl-C goes to the process that the user started; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Interrupts wait: a process that starts meanwhile is deaf to them from its first moment on."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
