"""Who works: results come with the numbers of their tasks, errors are those of one process, and nobody is left behind."""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pickle import PicklingError
from types import ModuleType, SimpleNamespace

import pytest
from athanor.hardware.cores import cores
from athanor.hardware.errors import InputError
from athanor.sim import workers as workers_module
from athanor.sim.workers import Here, Processes, Ranks, WorkerLost, on_cores, workers
from support.worked import process, refused, twice, unsendable

TASKS = [3, 1, 2]


class Executor:
    """Ranks of a job, in this process and backwards."""

    def map(self, call, jobs, unordered):
        assert unordered
        return map(call, reversed(jobs))


@contextmanager
def processes(count=2, patience=0.0):
    crew = Processes(count, patience)
    try:
        yield crew
    finally:
        crew.close()
        assert not multiprocessing.active_children()


def test_every_task_has_its_result():
    with processes() as crew:
        for each in (Here(), crew, Ranks(Executor())):
            assert sorted(each.results(str, TASKS)) == [(0, "3"), (1, "1"), (2, "2")]
            assert list(each.results(str, [])) == []


def test_a_generator_has_many_results():
    expected = [(0, 3), (0, 30), (1, 1), (1, 10), (2, 2), (2, 20)]
    assert list(Here().results(twice, TASKS)) == expected
    assert sorted(Ranks(Executor()).results(twice, TASKS)) == sorted(expected)
    with processes() as crew:
        found = list(crew.results(twice, TASKS))
    assert sorted(found) == sorted(expected)
    for task in range(3):
        assert [each for each in found if each[0] == task] == expected[2 * task : 2 * task + 2], "in the order as made"


def test_processes_start_for_what_takes_long_and_no_more_of_them_than_tasks():
    with processes(4, patience=60.0) as crew:
        assert {found for _, found in crew.results(process, [0] * 8)} == {os.getpid()}
    with processes(4) as crew:
        assert list(crew.results(process, [0])) == [(0, os.getpid())], "one task has nothing to share"
        first = {found for _, found in crew.results(process, [0] * 2)}
        assert len(multiprocessing.active_children()) == 2
        assert os.getpid() not in first
        assert {found for _, found in crew.results(process, [0])} <= first, "they stay"
        list(crew.results(process, [0] * 6))
        assert len(multiprocessing.active_children()) == 4


def test_errors_come_as_they_were_and_the_first_of_several():
    with processes() as crew:
        with pytest.raises(InputError, match="task 0") as caught:
            list(crew.results(refused, [0, 1, 2, 3]))
        assert caught.value.rule == "a rule"
        with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
            list(crew.results(math.sqrt, [4.0, -1.0]))
        assert sorted(crew.results(math.sqrt, [4.0, 9.0])) == [(0, 2.0), (1, 3.0)], "and others work on"


def test_a_process_that_is_killed_is_said():
    with processes() as crew, pytest.raises(WorkerLost, match=r"exit code 7.*--jobs 1"):
        list(crew.results(os._exit, [7, 7]))


def test_what_cannot_be_sent_is_told():
    with processes() as crew, pytest.raises((AttributeError, PicklingError), match=r"pickle|local"):
        list(crew.results(unsendable, [0, 1]))


def test_who_stops_listening_leaves_nobody_behind():
    with processes() as crew:
        for _ in crew.results(time.sleep, [0.0, 60.0, 60.0]):
            break
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 10
    with processes() as crew:
        asked = crew.results(time.sleep, [0.0, 60.0, 60.0])
        next(asked)
        assert len(multiprocessing.active_children()) == 2
        asked.close()
        assert not multiprocessing.active_children()


@pytest.mark.parametrize(("jobs", "known", "count"), [(1, 4, 1), (3, 1, 3), (None, 1, 1), (None, 4, 4), (0, 2, 2)])
def test_as_many_processes_as_are_asked_for_or_as_there_are_cores(jobs, known, count, monkeypatch):
    monkeypatch.setattr(workers_module, "cores", lambda: known)
    for made in (workers(jobs), on_cores(jobs)):
        with made as crew:
            assert type(crew) is (Here if count == 1 else Processes)
            assert count == getattr(crew, "count", 1)
            assert sorted(crew.results(str, TASKS)) == [(0, "3"), (1, "1"), (2, "2")]


def test_cores_are_those_that_this_process_may_run_on(monkeypatch):
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5} if pid == 0 else set())
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for known, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda known=known: known)
        assert cores() == expected


def test_interrupts_are_left_to_the_process_that_was_started():
    """Others are deaf from their first moment on: what starts them holds interrupts back meanwhile, and loses none."""
    with processes() as crew:
        assert {found for _, found in crew.results(signal.getsignal, [signal.SIGINT] * 2)} == {signal.SIG_IGN}
    before = signal.getsignal(signal.SIGINT)
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append("SIGINT"))
    try:
        with workers_module._interrupts_held():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # to this thread: a runner of tests has others
            assert not heard
        assert heard
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("size", "first"), [(1, True), (2, True), (2, False)])
def test_ranks_of_a_job_work_for_the_first(size, first, monkeypatch):
    """Alone there is no job; the others have nothing to do when they come back."""
    world = SimpleNamespace(size=size)

    @contextmanager
    def executor(found, root):
        assert (found, root) == (world, 0)
        yield Executor() if first else None

    package, futures = ModuleType("mpi4py"), ModuleType("mpi4py.futures")
    package.MPI, futures.MPICommExecutor = SimpleNamespace(COMM_WORLD=world), executor
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.setitem(sys.modules, "mpi4py.futures", futures)
    with workers(1, mpi=True) as crew:
        expected = Here if size == 1 else Ranks if first else type(None)
        assert type(crew) is expected
        if crew:
            assert sorted(crew.results(str, TASKS)) == [(0, "3"), (1, "1"), (2, "2")]
