"""A time limit that also holds where no Python runs: while MPI starts, and in calls that never return."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

SIGEV_THREAD = 2
"""Of ``timer_create``: call a function in a thread of its own."""


class _Event(ctypes.Structure):
    """``struct sigevent`` of 64-bit Linux."""

    _fields_ = [
        ("value", ctypes.c_uint64),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 40),
    ]


class _Times(ctypes.Structure):
    """``struct itimerspec``: the interval, none, and when it is over."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "seconds", "nanoseconds")]


class Timer:
    """Calls a function of the C library with one argument after so many seconds, whoever holds Python's lock."""

    def __init__(self, seconds: float, function: str, argument: bytes | int) -> None:
        library: Any = ctypes.CDLL(None)
        self._delete, self._timer = library.timer_delete, ctypes.c_void_p()
        self._delete.argtypes = [ctypes.c_void_p]
        self._kept = ctypes.create_string_buffer(argument) if isinstance(argument, bytes) else None
        value = ctypes.addressof(self._kept) if self._kept is not None else argument
        event = _Event(value, 0, SIGEV_THREAD, ctypes.cast(getattr(library, function), ctypes.c_void_p))
        if library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "timer_create")
        whole, part = divmod(seconds, 1.0)
        times = _Times(0, 0, int(whole), int(part * 1e9) or 1)
        library.timer_settime.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        library.timer_settime(self._timer, 0, ctypes.byref(times), None)

    def cancel(self) -> None:
        """It is not called any more."""
        if self._timer:
            self._delete(self._timer)
            self._timer = ctypes.c_void_p()


def ending_after(seconds: float, status: int) -> Timer | None:
    """A timer that ends this process with a status; None where the system has none."""
    return _timer(seconds, "_exit", status)


def saying_after(seconds: float, message: str) -> Timer | None:
    """A timer that says ``athanor: message`` on standard error; None where the system has none."""
    try:
        ctypes.c_char_p.in_dll(ctypes.CDLL(None), "program_invocation_short_name").value = b"athanor"
    except (ValueError, OSError):
        return None
    return _timer(seconds, "warnx", message.replace("%", "%%").encode())


def _timer(seconds: float, function: str, argument: bytes | int) -> Timer | None:
    if os.uname().sysname != "Linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or seconds > 1e9:
        return None
    try:
        return Timer(seconds, function, argument)
    except (AttributeError, OSError):
        return None
