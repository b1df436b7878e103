"""MPI: the library, its launcher, and whether ranks really start, find each other and compute."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from .finding import Answer, Finding, answer

NEEDED = "execute, train, calibrate, validate-runtime"
INSTALL = "pip install 'athanor[mpich]', or load your cluster's MPI module and pip install 'athanor[sysmpi]'"
RANKS = 2


def ranks() -> Iterator[Finding]:
    """The library alone, the launcher alone, and both together."""
    alone = answer([sys.executable, "-m", "athanor.cli.doctor.rank"])
    told = _told(alone)
    if told is None:
        yield Finding("MPI library", False, alone.reason, NEEDED, INSTALL)
        return
    yield Finding("MPI library", True, f"{told['library']}, mpi4py {metadata.version('mpi4py')}", NEEDED)
    launcher = _launcher()
    if launcher is None:
        text = "neither mpiexec nor srun is beside Python or on PATH"
        yield Finding("launcher", False, text, NEEDED, INSTALL)
        return
    version = answer([launcher, "--version"])
    line = next((line.strip() for line in version.out.splitlines() if "ersion" in line), "")
    yield Finding("launcher", True, f"{launcher} ({' '.join(line.split())})" if line else launcher, NEEDED)
    yield _several(launcher)


def _several(launcher: str) -> Finding:
    """Whether some ranks start, are one job, and compute."""
    together = answer([launcher, "-n", str(RANKS), sys.executable, "-m", "athanor.cli.doctor.rank"])
    told = _told(together)
    if told is None or told["ranks"] != RANKS:
        why = together.reason if told is None else "each was a job of its own"
        do = "use the launcher of the MPI library above: both in one environment, or both of your cluster's module"
        return Finding("ranks", False, f"{RANKS} ranks did not start as one job: {why}", NEEDED, do)
    rates = ", ".join(f"{rate / 1e9:.3g}" for rate in told["flops"])
    where = f"{told['ranks']} ranks on {told['kernels']} kernel{'s' if told['kernels'] > 1 else ''}"
    found = (
        f"{where}; 8 bytes there and back take {1e6 * told['round_trip']:.2g} us; products of matrices: {rates} GFLOP/s"
    )
    return Finding("ranks", True, found, NEEDED)


def _launcher() -> str | None:
    """The launcher of this Python's environment, else the first on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which("mpiexec", path=path) or shutil.which("srun", path=path)


def _told(said: Answer) -> dict[str, Any] | None:
    """What the first rank found; None where the job failed."""
    if said.status != 0:
        return None
    try:
        told = json.loads(said.out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return told if isinstance(told, dict) else None
