"""What an operation costs in the executor beyond its MPI calls: 1,000 small all-to-alls, beside plain mpi4py.

``python benchmarks/executor.py`` starts two ranks, which execute a step of 1,000 all-to-alls of 8 bytes, pair after pair, and the
same messages in a loop of Irecv, Isend and Waitall, in turn. The figure is the difference of the two, divided by 1,000. It does
not depend on what the network can do; ``--record`` keeps it in ``executor.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "executor.json"
COUNT, REPEATS, MOST = 1000, 11, 15e-6
"""Operations of a step, steps of each kind, and the most that an operation may cost beside its messages."""


def job() -> None:
    """One rank of the job; rank 0 prints the figures as JSON."""
    from athanor.mpi_runtime.job.environment import prepare

    prepare()
    import numpy as np
    from athanor.mpi_runtime.devices import Computing
    from athanor.mpi_runtime.execute.executor import Executor
    from athanor.mpi_runtime.job.world import start
    from athanor.mpi_runtime.messages.transport import Transport
    from athanor.mpi_runtime.training.stand_ins import Blank
    from athanor.workloads.mesh.mesh import Mesh
    from athanor.workloads.mesh.placement import Layout
    from athanor.workloads.schedule.operation import Operation, Role, Task
    from athanor.workloads.schedule.schedule import Schedule
    from athanor.workloads.schedule.work import COUNT as COUNTED
    from athanor.workloads.schedule.work import Exchange
    from mpi4py import MPI

    world = start()
    comm, size, rank = world.comm, world.size, world.rank
    layout = Layout(Mesh(("ep",), (size,)), np.arange(size), 1, size, size)
    work = Exchange("all-to-all", "pairwise-shift", ("ep",), 8.0 * size, COUNTED)
    operations = tuple(
        Operation(
            f"{number}", "forward", "expert_dispatch", "main", work, (number - 1,) if number else (), Task(Role.OTHER)
        )
        for number in range(COUNT)
    )
    schedule = Schedule(layout, operations)
    transport = Transport(comm, schedule, library=False)
    executor = Executor(Blank(transport, layout.mesh, (rank,)), Computing, (rank,))
    send, received = np.zeros((size, 8), dtype=np.uint8), np.empty((size, 8), dtype=np.uint8)

    def bare() -> None:
        for _ in range(COUNT):
            received[rank] = send[rank]
            for step in range(1, size):
                to, source = (rank + step) % size, (rank - step) % size
                MPI.Request.Waitall([comm.Irecv(received[source], source), comm.Isend(send[to], to)])

    times: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for taken, way in zip(times, (bare, lambda: executor.run(operations)), strict=True):
            comm.Barrier()
            before = time.perf_counter()
            way()
            taken.append((time.perf_counter() - before) / COUNT)
    slowest = [np.max(comm.allgather(taken), axis=0) for taken in times]
    if world.first:
        figures = {
            "library": world.library,
            "ranks": size,
            "bare_seconds": float(np.median(slowest[0])),
            "executor_seconds": float(np.median(slowest[1])),
            "least_bare_seconds": float(slowest[0].min()),
            "least_executor_seconds": float(slowest[1].min()),
        }
        print(json.dumps(figures))


def main() -> None:
    """Run the job and print what it found."""
    mpiexec = str(Path(sys.executable).parent / "mpiexec")
    command = [mpiexec, "-n", "2", sys.executable, __file__, "--job"]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    for name, before in (("median", ""), ("least", "least_")):
        bare, executor = found[f"{before}bare_seconds"], found[f"{before}executor_seconds"]
        print(
            f"{name}: {1e6 * bare:.1f} us of bare mpi4py, {1e6 * executor:.1f} us in the executor:"
            f" {1e6 * (executor - bare):.1f} us more (at most {1e6 * MOST:.0f})"
        )
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    job() if "--job" in sys.argv else main()
