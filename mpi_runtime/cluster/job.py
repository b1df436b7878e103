"""A job on the emulated cluster: mpiexec inside node 0, which reaches the other nodes through their namespaces."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ...hardware.errors import AthanorError, InputError
from .shape import EmulatedNode
from .tree import LAUNCHER

TUNING = {
    # More ranks than cores: MPICH must give the core back when it waits, and BLAS must not start threads.
    "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""Settings of every job, unless the environment has its own."""

TREE = {
    "MPIR_CVAR_CH4_NETMOD": "ucx",
    "UCX_TLS": "tcp,self",
    "UCX_NET_DEVICES": "eth0",
    "UCX_TCP_PUT_ENABLE": "n",
}
"""What makes MPICH send by TCP over the nodes' links; ranks of one node share memory.

Without the last, UCX answers a request for a large message on the connection that carries its own: where two ranks swap
more than 1 MiB, one message then waits for the other, and the exchange takes twice its time.
"""

LOOPBACK = {
    "MPIR_CVAR_NOLOCAL": "1",
    "MPIR_CVAR_CH4_NETMOD": "ofi",
    "FI_PROVIDER": "tcp",
    "FI_TCP_IFACE": "lo",
}
"""What makes MPICH send by TCP over the loopback device also what it would pass through memory (UCX refuses that device)."""

TIMER_SLACK = 200e-6
"""Seconds that the kernel may let a waiting rank sleep longer than asked.

MPICH's ranks sleep a nanosecond between two looks at their connections; by default 16 of them would keep two cores half
busy with looking.
"""

GRACE = 5.0
"""Seconds that an interrupted job has to end by itself."""


class TimeLimit(AthanorError):
    """A job that ran longer than it was allowed to, and was killed; the status is that of timeout(1)."""

    exit_status = 124


def mpiexec() -> str | None:
    """MPICH's mpiexec: that of this Python's environment, else the one on PATH; None where there is none."""
    found = shutil.which("mpiexec", path=_path())
    if not found:
        return None
    told = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    return found if "HYDRA" in told else None


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def environment(cluster: str, network: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job of ``cluster``: this process's, with the network's settings and the cluster's name."""
    return {**TUNING, **os.environ, **network, "PATH": _path(), "ATHANOR_CLUSTER": cluster}


def placed(nodes: Sequence[EmulatedNode], ranks: int | None, ranks_per_node: int) -> tuple[int, list[EmulatedNode]]:
    """How many ranks there are, and the nodes that they take, in order; raises :class:`InputError` for too many."""
    room = len(nodes) * ranks_per_node
    wanted = room if ranks is None else ranks
    if not 1 <= wanted <= room:
        raise InputError(f"-n {wanted}: {len(nodes)} nodes with {ranks_per_node} ranks each take 1 to {room} ranks")
    return wanted, list(nodes[: -(-wanted // ranks_per_node)])


def on_nodes(
    enter: Sequence[str], nodes: Sequence[EmulatedNode], ranks: int, ranks_per_node: int, command: Sequence[str]
) -> list[str]:
    """The command that starts ``command`` on ``ranks`` ranks, one process namespace for all of the job."""
    hosts = ",".join(f"{node.address}:{ranks_per_node}" for node in nodes)
    start = [mpiexec() or "mpiexec", "-launcher", "ssh", "-launcher-exec", LAUNCHER, "-iface", "eth0"]
    slack = f"{{ echo {TIMER_SLACK * 1e9:.0f} > /proc/self/timerslack_ns; }} 2> /dev/null"
    inside = f'{slack}; hostname "$0" && cd "$1" && shift && exec "$@"'
    return [
        *enter,
        *("ip", "netns", "exec", nodes[0].name),
        *("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", "-c", inside, nodes[0].name, str(Path.cwd())),
        *(*start, "-hosts", hosts, "-n", str(ranks), *command),
    ]


def on_loopback(ranks: int, command: Sequence[str]) -> list[str]:
    """The command that starts ``command`` on ``ranks`` ranks of this computer, none of which share memory."""
    return [mpiexec() or "mpiexec", "-launcher", "fork", "-iface", "lo", "-n", str(ranks), *command]


def run(
    command: Sequence[str], environment: Mapping[str, str], depth: int, limit: float | None, capture: bool
) -> subprocess.CompletedProcess[str]:
    """Run a job to its end and give its status (and output, where it is captured).

    ``mpiexec`` is ``depth`` processes below the one that ``command`` starts. An interruption is handed on to it, and it
    is killed where it does not end; raises :class:`TimeLimit` after ``limit`` seconds. Whatever happens, none of its
    processes is left.
    """
    pipe = subprocess.PIPE if capture else None
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise TimeLimit(f"--limit {limit:g}: the job had not ended after {limit:g} s and was killed") from None
    except KeyboardInterrupt:
        _signal(_below(process.pid, depth), signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE)
        raise
    finally:
        if process.poll() is None:
            _signal(_all_below(process.pid), signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _below(pid: int, depth: int) -> list[int]:
    """The processes that are ``depth`` generations below one."""
    generation = [pid]
    for _ in range(depth):
        generation = [child for parent in generation for child in _children().get(parent, [])]
    return generation


def _all_below(pid: int) -> list[int]:
    """A process and all that it has started, itself and the eldest first."""
    children, found = _children(), [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _children() -> dict[int, list[int]]:
    """The children of every process."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            found.setdefault(parent, []).append(int(path.parent.name))
    return found
