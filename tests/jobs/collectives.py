"""A job: every collective algorithm over real messages, on groups of many shapes, against what NumPy alone makes of all data."""

import sys

import numpy as np
from athanor.mpi_runtime.job.environment import prepare

prepare()
from athanor.mpi_runtime.job.ending import guarded
from athanor.mpi_runtime.job.world import start
from athanor.mpi_runtime.messages import library_collectives as native
from athanor.mpi_runtime.messages import rounds
from athanor.mpi_runtime.messages.groups import Group
from athanor.workloads.collectives import ALGORITHMS, ROOTED
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import Layout
from mpi4py import MPI


def finish(steps):
    """Play a generator of requests to its end; returns what it returns."""
    while True:
        try:
            MPI.Request.Waitall(next(steps))
        except StopIteration as end:
            return end.value


def groups(world):
    """The whole job on layouts of many shapes: one supernode, equal parts in several, unequal parts; ranks in and out of order."""
    size = world.size
    for supernode in {1, 2, 3, size}:
        for reverse in (False, True):
            node = np.arange(size)[::-1].copy() if reverse else np.arange(size)
            mesh = Mesh(("ep",), (size,))
            layout = Layout(mesh, node, 1, supernode, supernode)
            cartesian = world.comm.Create_cart([size])
            yield Group.of(cartesian, mesh, layout, ("ep",), np.zeros(size))


def vectors(members, operation, algorithm, library, start):
    group = members.from_root(start)
    cells = group.size if library else group.cells(operation, algorithm)
    home = group.me if library else group.home(operation, algorithm)
    every = np.random.default_rng(3).integers(-9, 9, (group.size, cells, 5)).astype(np.float64)
    mine = every[group.me].copy()
    root = int(members.member[start])
    homes = group.comm.allgather(home)
    finish((native if library else rounds).play(group, operation, algorithm, mine))
    total = every.sum(axis=0)
    if operation == "all-reduce" or (operation == "reduce" and group.me == root):
        assert (mine == total).all()
    elif operation == "reduce-scatter":
        assert (mine[home] == total[home]).all() and sorted(homes) == list(range(group.size))
    elif operation == "all-gather":
        assert all((mine[homes[other]] == every[other, homes[other]]).all() for other in range(group.size))
    elif operation == "broadcast":
        assert (mine == every[root]).all()
    elif operation == "shift":
        neighbour = (group.position + (-1 if algorithm == "next" else 1)) % group.size
        assert (mine == every[group.member[neighbour]]).all()


def exchange(group, algorithm, even):
    random = np.random.default_rng(4)
    counts = random.integers(0, 7, (group.size, group.size))
    counts[:] = 3 if even else counts
    origin, target = group.me, np.arange(group.size)
    rows = [np.full((counts[origin, other], 2), 100 * origin + other, dtype=np.float32) for other in target]
    for number, row in enumerate(rows):
        row[:, 1] = np.arange(len(row)) + number
    send, out, back = np.concatenate(rows), counts[origin], counts[:, origin]
    if algorithm is None:
        arrived = finish(native.exchange(group, send, out, back))
    else:
        arrived = finish(rounds.exchange(group, algorithm, send, out, back, int(counts.sum(axis=1).max())))
    expected = [np.full((counts[other, origin], 2), 100 * other + origin) for other in target]
    for row in expected:
        row[:, 1] = np.arange(len(row)) + origin
    assert (arrived == np.concatenate(expected)).all(), (algorithm, even)


def runs(group, operation, algorithm):
    known = ALGORITHMS[operation][algorithm]
    powers = not known.power_of_two or group.size & (group.size - 1) == 0
    return powers and (not known.grid or group.outer * group.inner == group.size)


world, played = start(), 0
with guarded(world, 60):
    for group in groups(world):
        for operation, known in ALGORITHMS.items():
            algorithms = [algorithm for algorithm in known if runs(group, operation, algorithm)]
            if operation == "all-to-all":
                for algorithm in [*algorithms, None]:
                    for even in (True, False):
                        if even or algorithm is None or known[algorithm].uneven:
                            exchange(group, algorithm, even)
                            played += 1
                continue
            for algorithm in algorithms:
                for library in (False, True):
                    for root in {0, 1, group.size - 1} if operation in ROOTED else {0}:
                        vectors(group, operation, algorithm, library, root)
                        played += 1
if world.first:
    print(f"{played} collectives on {world.size} ranks")
sys.exit(0)
