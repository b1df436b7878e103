"""Sleep that ends on time, also where a job's timers are set to be late."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache

SET_TIMER_SLACK, GET_TIMER_SLACK = 29, 30
"""Options of Linux's prctl (linux/prctl.h): by how many nanoseconds a thread's sleep may end late."""

LEAST = 1
"""Nanoseconds of slack of a sleep that is to end on time; 0 would stand for the default."""


def sharp_sleep(seconds: float) -> None:
    """Sleep, and wake up some tens of microseconds late at most; the thread's slack is then what it was.

    Jobs on emulated clusters have 200 us of slack, so that ranks that wait for messages look for them less often.
    """
    slack = _prctl()
    before = slack(GET_TIMER_SLACK, 0) if slack else 0
    if slack is None or before <= LEAST:
        time.sleep(seconds)
        return
    slack(SET_TIMER_SLACK, LEAST)
    try:
        time.sleep(seconds)
    finally:
        slack(SET_TIMER_SLACK, before)


@cache
def _prctl() -> Callable[[int, int], int] | None:
    """``prctl(option, value)`` of this system; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        call = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    return lambda option, value: int(call(option, ctypes.c_ulong(value), 0, 0, 0))
