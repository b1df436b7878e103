"""Who ranks meshes: results come with the numbers of their tasks, and what is known of a question is kept for its next mesh."""

import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
from athanor.sim.planning import workers as workers_module
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.ranking import rank
from athanor.sim.planning.space import Space
from athanor.sim.planning.workers import Here, Processes, Ranks, cores, rank_mesh, workers
from support.small_searches import FEW, asked

TASKS = [3, 1, 2]


class Pool:
    """A pool of processes, in this one and backwards; ``made`` are those that were asked for."""

    made: list = []

    def __init__(self, count, initializer):
        self.made.append((count, initializer))

    def __enter__(self):
        return self

    def __exit__(self, *wrong):
        self.made.append("closed")

    def imap_unordered(self, call, jobs):
        return map(call, reversed(list(jobs)))

    def map(self, call, jobs, unordered):
        assert unordered
        return map(call, reversed(jobs))


@pytest.fixture
def pools(monkeypatch):
    """What pools are made instead of processes."""
    made = []
    monkeypatch.setattr(Pool, "made", made)
    monkeypatch.setattr(multiprocessing, "get_context", lambda way: SimpleNamespace(Pool=Pool, way=way))
    return made


def test_every_task_has_its_result():
    pool = Pool(1, None)
    for crew in (Here(), Processes(pool), Ranks(pool)):
        assert sorted(crew.results(str, TASKS)) == [(0, "3"), (1, "1"), (2, "2")]


@pytest.mark.parametrize(("jobs", "known", "count"), [(1, 4, 1), (3, 1, 3), (None, 1, 1), (None, 4, 4), (0, 2, 2)])
def test_as_many_processes_as_are_asked_for_or_as_there_are_cores(jobs, known, count, pools, monkeypatch):
    monkeypatch.setattr(workers_module, "cores", lambda: known)
    with workers(jobs) as crew:
        if count == 1:
            assert isinstance(crew, Here)
        else:
            assert isinstance(crew, Processes)
            assert pools == [(count, workers_module._leave_interrupts)]
        assert sorted(crew.results(str, TASKS)) == [(0, "3"), (1, "1"), (2, "2")]
    assert pools == ([] if count == 1 else [(count, workers_module._leave_interrupts), "closed"])


def test_cores_are_those_that_this_process_may_run_on(monkeypatch):
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5} if pid == 0 else set())
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for known, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda known=known: known)
        assert cores() == expected


def test_interrupts_are_left_to_the_process_that_was_started():
    before = signal.getsignal(signal.SIGINT)
    try:
        workers_module._leave_interrupts()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("size", "first"), [(1, True), (2, True), (2, False)])
def test_ranks_of_a_job_work_for_the_first(size, first, pools, monkeypatch):
    """Alone there is no job; the others have nothing to do when they come back."""
    world = SimpleNamespace(size=size)

    @contextmanager
    def executor(found, root):
        assert (found, root) == (world, 0)
        yield Pool(0, None) if first else None

    package, futures = ModuleType("mpi4py"), ModuleType("mpi4py.futures")
    package.MPI, futures.MPICommExecutor = SimpleNamespace(COMM_WORLD=world), executor
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.setitem(sys.modules, "mpi4py.futures", futures)
    with workers(1, mpi=True) as crew:
        expected = Here if size == 1 else Ranks if first else type(None)
        assert type(crew) is expected
        if crew:
            assert sorted(crew.results(str, TASKS)) == [(0, "3"), (1, "1"), (2, "2")]


def test_what_is_known_of_a_question_serves_its_next_mesh_alone(monkeypatch):
    made = []
    monkeypatch.setattr(workers_module, "Estimator", lambda question: made.append(question) or Estimator(question))
    monkeypatch.setattr(workers_module, "_estimators", {})
    one, other = Space(asked(**FEW)), Space(asked(batch=16, **FEW))
    fresh = rank(Estimator(one.question), one, one.meshes[0], 2)
    for space in (one, one, other, one):
        for mesh in space.meshes[:2]:
            found = rank_mesh((space, mesh, 2))
            if space is one and mesh == one.meshes[0]:
                assert (found.best, found.front, found.pruned) == (fresh.best, fresh.front, fresh.pruned)
            assert len(found.best) == 2
            assert {str(each.mesh) for each in found.best} == {str(mesh)}
    assert made == [one.question, other.question, one.question]
    assert len(workers_module._estimators) == 1, "of the last question alone, as they are large"
