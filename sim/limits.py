"""Whether a simulation fits the memory of the computer that is to run it, before it starts."""

from __future__ import annotations

import os
import resource
import sys

from ..hardware.errors import DoesNotFit
from ..workloads.setting import Setting

BASE = 100e6
"""Bytes of Python with its libraries."""

ARRAYS = 60
"""Arrays of one number a rank that are alive at once: layout, groups, links and their loads. Measured at 96,000 ranks."""


def estimate_bytes(setting: Setting) -> float:
    """Bytes that simulating a step needs at most, from the sizes of the arrays alone."""
    arrays = ARRAYS
    if not setting.plan.balancing.level:  # each layer's wanted and carried tokens, and what follows from them
        arrays += 4 * setting.model.layers * setting.batch.micro_batches
    experts = 8 * setting.model.experts * (4 + 2 * setting.top_k)
    return BASE + 8.0 * setting.mesh.ranks * arrays + experts


def require_room(setting: Setting) -> None:
    """Raise :class:`DoesNotFit` where a simulation needs more memory than this computer has free."""
    needed, free = estimate_bytes(setting), available_bytes()
    if needed > free:
        raise DoesNotFit(
            f"simulating {setting.mesh.ranks:,} ranks needs about {needed / 1e9:.1f} GB of this computer's memory,"
            f" of which {free / 1e9:.1f} GB are free; a smaller --mesh, --balancer swipe or larger micro-batches need less"
        )


def available_bytes() -> float:
    """Bytes that this process may still take."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    free = float("inf")
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - a kernel file, read line by line
            free = next(1024.0 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(free, float("inf") if limit == resource.RLIM_INFINITY else float(limit))


def peak_rss_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
