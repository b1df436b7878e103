"""What the executor costs beside bare mpi4py: the same messages, sent both ways in one job, in turn.

``python benchmarks/runtime.py`` starts two ranks that share memory, and two that talk TCP on an emulated network; ``--record``
keeps the figures in ``runtime.json``. A ring all-gather and a pairwise all-to-all are written out by hand with Isend, Irecv and
Waitall, on buffers made beforehand; the executor plays them from their rounds, stream and all. The figure is the ratio of the
medians.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "runtime.json"
SIZES = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20]
RANKS, REPEATS, MOST = 2, 101, 1.05
"""Ranks (one a core: with more, the scheduler is measured), samples of each, and the target for messages of 64 KiB and more."""


def job() -> None:
    """One rank of the job; rank 0 prints the rows as JSON."""
    from athanor.mpi_runtime.job.environment import prepare

    prepare()
    import numpy as np
    from athanor.mpi_runtime.job.world import start
    from athanor.mpi_runtime.messages.groups import Group
    from athanor.mpi_runtime.messages.rounds import exchange, play
    from athanor.mpi_runtime.messages.streams import Streams
    from athanor.workloads.mesh.mesh import Mesh
    from athanor.workloads.mesh.placement import Layout
    from mpi4py import MPI

    world = start()
    comm, size, rank = world.comm, world.size, world.rank
    layout = Layout(Mesh(("ep",), (size,)), np.arange(size), 1, size, size)
    group = Group.of(comm.Create_cart([size]), layout.mesh, layout, ("ep",), np.zeros(size))
    rows = []
    for nbytes in SIZES:
        cells = np.zeros((size, nbytes), dtype=np.uint8)
        send, counts = np.zeros((size, nbytes), dtype=np.uint8), np.ones(size, dtype=np.int64)
        received = np.empty_like(send)

        def bare_ring(cells: Any = cells) -> None:
            for step in range(size - 1):
                into, out = (rank - 1 - step) % size, (rank - step) % size
                requests = [comm.Irecv(cells[into], (rank - 1) % size), comm.Isend(cells[out], (rank + 1) % size)]
                MPI.Request.Waitall(requests)

        def bare_pairs(send: Any = send, received: Any = received) -> None:
            received[rank] = send[rank]
            for step in range(1, size):
                to, source = (rank + step) % size, (rank - step) % size
                MPI.Request.Waitall([comm.Irecv(received[source], source), comm.Isend(send[to], to)])

        def played(cells: Any = cells) -> Iterator[Any]:
            yield from play(group, "all-gather", "ring", cells)

        def exchanged(send: Any = send, counts: Any = counts) -> Iterator[Any]:
            yield from exchange(group, "pairwise-shift", send, counts, counts, size)

        def streamed(steps: Callable[[], Iterator[Any]]) -> Callable[[], None]:
            return lambda: Streams(lambda _: None).run({"communication": steps()})

        for name, ways in (
            ("ring all-gather", (bare_ring, streamed(played))),
            ("pairwise all-to-all", (bare_pairs, streamed(exchanged))),
        ):
            times: list[list[float]] = [[], []]
            for _ in range(REPEATS):
                for taken, way in zip(times, ways, strict=True):
                    comm.Barrier()
                    before = time.perf_counter()
                    way()
                    taken.append(time.perf_counter() - before)
            slowest = [np.max(comm.allgather(taken), axis=0) for taken in times]
            bare, executor = (float(np.median(each)) for each in slowest)
            row = {"collective": name, "bytes": nbytes, "bare_seconds": bare, "executor_seconds": executor}
            rows.append({**row, "ratio": float(np.median(slowest[1] / slowest[0]))})
    if world.first:
        print(json.dumps({"library": world.library, "ranks": size, "rows": rows}))


def measured() -> list[dict[str, Any]]:
    """The job's rows through shared memory, and over an emulated network where one can be had."""
    from athanor.mpi_runtime.cluster import Cluster, Shape, missing

    command = [sys.executable, __file__, "--job"]
    mpiexec = str(Path(sys.executable).parent / "mpiexec")
    done = subprocess.run([mpiexec, "-n", str(RANKS), *command], stdout=subprocess.PIPE, text=True, check=True)
    found = [{"where": "shared memory", **json.loads(done.stdout)}]
    if missing() is None:
        rate = "1 Gbit/s"
        with Cluster.up(Shape(supernodes=1, nodes=RANKS, node_rate=1e9 / 8), name="benchmark") as cluster:
            found.append(
                {"where": f"TCP at {rate}", **json.loads(cluster.run(command, capture=True, limit=600).stdout)}
            )
    return found


def main() -> None:
    """Run the job and print its table."""
    from rich.console import Console
    from rich.table import Table

    found = measured()
    columns = ("where", "collective", "message", "bare us", "executor us", "ratio", "target")
    table = Table(*columns, title="Executor beside bare mpi4py")
    for record in found:
        for row in record["rows"]:
            times = (f"{1e6 * row[key]:.0f}" for key in ("bare_seconds", "executor_seconds"))
            target = f"{MOST}" if row["bytes"] >= 64 << 10 else ""
            name = (record["where"], row["collective"], f"{row['bytes'] >> 10} KiB")
            table.add_row(*name, *times, f"{row['ratio']:.3f}", target)
    Console().print(table)
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    job() if "--job" in sys.argv else main()
