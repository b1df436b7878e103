"""What stands in the environment of a rank: settings made before NumPy and MPI load, and what the launcher says."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ...hardware.cores import cores

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
"""Read by BLAS libraries as they load: with more than one thread a rank, ranks take each other's cores."""

YIELDING = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "MPIR_CVAR_POLLS_BEFORE_YIELD": "1"}
"""MPICH polls; where ranks share cores it has to give way, or every message waits for a time slice. Open MPI does so itself."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt: how much free memory is given back, and from what size on a buffer is mapped by itself."""

RANKS = {"hydra": "PMI_RANK", "prrte": "OMPI_COMM_WORLD_RANK", "slurm": "SLURM_PROCID"}
SIZES = {"hydra": "PMI_SIZE", "prrte": "OMPI_COMM_WORLD_SIZE", "slurm": "SLURM_STEP_NUM_TASKS"}
LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE")


@dataclass(frozen=True)
class Launcher:
    """What the launcher told this process: its kind, the process's rank and how many were started; None where nothing did."""

    kind: str
    rank: int
    ranks: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Launcher | None:
        """The launcher that an environment shows: MPICH's (or Intel's) hydra, Open MPI's, or Slurm's srun."""
        for kind, key in SIZES.items():
            size, rank = environment.get(key, ""), environment.get(RANKS[kind], "")
            if size.isdigit() and rank.isdigit():
                return cls(kind, int(rank), int(size))
        return None


def local_ranks(environment: Mapping[str, str]) -> int:
    """Ranks that the launcher started on this host, as far as it says; else 1."""
    for key in LOCAL_SIZES:
        text = environment.get(key, "").partition("(")[0]  # Slurm writes 4(x2)
        if text.isdigit():
            return int(text)
    return 1


def keep_memory() -> None:
    """Let freed memory stay with the process: a buffer that is made anew for every message would else be paged in each time."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            tune = ctypes.CDLL(None).mallopt
            tune(M_MMAP_THRESHOLD, 1 << 30)
            tune(M_TRIM_THRESHOLD, 1 << 30)


def prepare() -> None:
    """One BLAS thread a rank, and yielding where ranks exceed cores; what the user has set stays.

    Has an effect only before NumPy and mpi4py are imported.
    """
    for name in THREADS:
        os.environ.setdefault(name, "1")
    keep_memory()
    if local_ranks(os.environ) > cores():
        for name, value in YIELDING.items():
            os.environ.setdefault(name, value)
