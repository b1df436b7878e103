"""The streams of a rank, side by side in one thread: each is a generator that says what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..job.sharp_sleep import sharp_sleep

if TYPE_CHECKING:
    from mpi4py import MPI

PAUSE = 50e-6
"""Seconds between looks at several streams' messages: short beside a message, long beside a look."""


@dataclass(frozen=True)
class After:
    """Wait until an operation of the schedule has ended on this rank."""

    number: int


@dataclass(frozen=True)
class Until:
    """Wait until a moment of the local clock."""

    moment: float


Wait = "After | Until | list[MPI.Request]"
Stream = Generator["After | Until | list[MPI.Request]", None, None]


class Streams:
    """Runs streams until all have ended.

    ``ended(number)`` gives the moment at which an operation ended or will end, None where that is not known yet. With one
    stream at work it blocks in MPI or sleeps; with several it looks at each in turn.
    """

    def __init__(self, ended: Callable[[int], float | None]) -> None:
        from mpi4py import MPI

        self.ended, self._request = ended, MPI.Request

    def run(self, streams: Mapping[str, Stream]) -> None:
        """Run all streams to their ends."""
        waiting = {name: wait for name, stream in streams.items() if (wait := next(stream, None)) is not None}
        while waiting:
            moved = False
            for name, stream in streams.items():
                while name in waiting and self._over(waiting[name], alone=len(waiting) == 1):
                    moved = True
                    if (wait := next(stream, None)) is None:
                        del waiting[name]
                    else:
                        waiting[name] = wait
            if not moved:
                self._pause(list(waiting.values()))

    def _over(self, wait: After | Until | list[MPI.Request], alone: bool) -> bool:
        """Whether a wait is over; a stream that is alone waits for its messages at once."""
        if isinstance(wait, list):
            if alone:
                self._request.Waitall(wait)
                return True
            return bool(self._request.Testall(wait))
        if isinstance(wait, Until):
            return wait.moment <= time.perf_counter()
        end = self.ended(wait.number)
        return end is not None and end <= time.perf_counter()

    def _pause(self, waits: list[After | Until | list[MPI.Request]]) -> None:
        """Wait for the first of these; an operation that another stream still has to begin is none of them."""
        moments = [wait.moment for wait in waits if isinstance(wait, Until)]
        moments += [end for wait in waits if isinstance(wait, After) and (end := self.ended(wait.number)) is not None]
        messages = [wait for wait in waits if isinstance(wait, list)]
        if len(messages) == 1 and not moments:
            self._request.Waitall(messages[0])
            return
        left = min(moments, default=float("inf")) - time.perf_counter()
        sharp_sleep(max(0.0, min(left, PAUSE) if messages else left))
