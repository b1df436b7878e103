"""Ctrl-C inside a call that may never return."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_at_once() -> Iterator[None]:
    """An interruption ends this process where it stands, even inside a call of the MPI library.

    Python answers a signal when such a call returns. ``MPI_Init`` of one rank never does where another was interrupted
    before it: the job would hang, and spin. What the job's status is then, the launcher says (hydra: 2, the signal's
    number). Nothing changes where interruptions are ignored, as in jobs that a shell starts in the background, or where
    the program has a handler of its own.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
