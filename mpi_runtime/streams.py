"""The streams of a rank, side by side in one thread: each is a generator that says what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        self.ended = ended

    def run(self, streams: Mapping[str, Stream]) -> None:
        """Run all streams to their ends."""
        waiting = {name: next(stream, None) for name, stream in streams.items()}
        while any(wait is not None for wait in waiting.values()):
            moved = False
            for name, wait in waiting.items():
                while wait is not None and self._over(wait):
                    wait = waiting[name] = next(streams[name], None)
                    moved = True
            if not moved:
                self._pause([wait for wait in waiting.values() if wait is not None])

    def _over(self, wait: After | Until | list[MPI.Request]) -> bool:
        match wait:
            case After(number):
                end = self.ended(number)
                return end is not None and end <= time.perf_counter()
            case Until(moment):
                return moment <= time.perf_counter()
        from mpi4py import MPI

        return bool(MPI.Request.Testall(wait))

    def _pause(self, waits: list[After | Until | list[MPI.Request]]) -> None:
        """Wait for the first of these; an operation that another stream still has to begin is none of them."""
        moments = [wait.moment for wait in waits if isinstance(wait, Until)]
        moments += [end for wait in waits if isinstance(wait, After) and (end := self.ended(wait.number)) is not None]
        messages = [wait for wait in waits if isinstance(wait, list)]
        if len(messages) == 1 and not moments:
            from mpi4py import MPI

            MPI.Request.Waitall(messages[0])
            return
        left = min(moments, default=float("inf")) - time.perf_counter()
        time.sleep(max(0.0, min(left, PAUSE) if messages else left))
