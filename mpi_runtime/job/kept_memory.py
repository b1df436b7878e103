"""Memory that arrays have freed stays with the process, so that the next ones do not have to ask the system for it again."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of the GNU C library's ``mallopt`` (malloc.h)."""

LARGEST, KEPT = 32 << 20, 1 << 30
"""Bytes of an array that is not kept any more (the most that the library takes), and of freed memory that is."""


def keep_freed_memory() -> None:
    """Keep what arrays of up to 32 MiB have freed.

    Else each temporary array of an operator is new memory, whose pages the system has to fill with zeros first: gradients of
    activations took four to six times as long. Other C libraries are left as they are.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(MMAP_THRESHOLD, LARGEST)
            library.mallopt(TRIM_THRESHOLD, KEPT)
