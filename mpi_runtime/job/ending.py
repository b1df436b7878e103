"""The end of a job: whatever fails on one rank ends all of them, with one line, one status, and within the time limit."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from stat import S_ISFIFO
from termios import FIONREAD
from types import TracebackType
from typing import NoReturn

from ...hardware.errors import AthanorError, Ended
from .environment import Launcher
from .hard_limit import Timer, ending_after, saying_after
from .world import World

TURN = 0.2
"""Seconds between the ranks' turns to say why a job failed."""

TIME_LIMIT = 600.0
"""Seconds after which a job ends itself where the user names no other limit: no job hangs."""

GRACE = 1.0
"""Seconds that other ranks wait for rank 0 to speak first."""

ANSWERS = 1.0
"""Seconds within which ranks have to say where they are when the time is over."""

LAST = 4.5
"""Seconds beyond the limit after which a rank ends without a word, in whatever call it is."""

TAG = 31_001
"""Of the messages that say so."""

MOST_PLACES = 3
"""So many places are told of ranks that ran out of time."""

STATUS = 124
"""Of a job that ran out of time."""

PACKAGE = str(Path(__file__).parents[2])


class Watchdog:
    """Ends a job that takes longer than ``limit`` seconds, from before MPI starts on: it may never do so on some rank.

    A rank that is stopped is named, and so is one that hangs beside the others' way. While MPI starts no Python runs
    beside it: timers of the system stand in.
    """

    def __init__(self, limit: float, world: World | None = None) -> None:
        self.limit, self._world = limit, world
        self._text = f"--time-limit {limit:g}: the job ran longer and was ended"
        self._timers: list[Timer | None] = []
        self._main = threading.current_thread().ident
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        if self._world is None:
            launcher = Launcher.of(os.environ)
            if launcher is None or launcher.rank == 0:
                self._timers.append(saying_after(self.limit, f"{self._text}; MPI had not started on all ranks"))
            self._timers.append(ending_after(self.limit + TURN, STATUS))
        else:
            self._timers.append(ending_after(self.limit + LAST, STATUS))
        self._began = time.monotonic()
        self._thread.start()
        return self

    def joined(self, world: World) -> None:
        """MPI has started: from now on all ranks end together."""
        self._cancel()
        self._timers = [ending_after(self.limit + LAST - (time.monotonic() - self._began), STATUS)]
        self._world = world

    def _cancel(self) -> None:
        for timer in self._timers:
            if timer is not None:
                timer.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._cancel()

    def _watch(self) -> None:
        if self._over.wait(min(self.limit, threading.TIMEOUT_MAX)):
            return
        if self._world is not None:
            abort(self._world, self._text + self._where(self._world), STATUS)

    def _where(self, world: World) -> str:
        """Where ranks are, and which do not answer; on other ranks than the first, after it had time to speak."""
        if world.size == 1:
            return ""
        here = self._place()
        if not world.first:
            world.comm.isend(here, 0, TAG)
            time.sleep(ANSWERS + GRACE + min(world.rank - 1, 5) * TURN)
            return f" ({world.named(0)} does not answer)"
        places = {0: here}
        until = time.monotonic() + ANSWERS
        while len(places) < world.size and time.monotonic() < until:
            for rank in set(range(1, world.size)) - set(places):
                if world.comm.iprobe(rank, TAG):
                    places[rank] = world.comm.recv(source=rank, tag=TAG)
            time.sleep(0.01)
        silent = [rank for rank in range(world.size) if rank not in places]
        at = [(numbers_text(ranks, world), place) for place, ranks in _grouped(places)]
        told = [f"{numbers_text(silent, world)} {'does' if len(silent) == 1 else 'do'} not answer"] if silent else []
        if len(at) > 1:
            told += [f"{who} at {place}" for who, place in at[:MOST_PLACES]]
        return f" ({'; '.join(told)})" if told else ""

    def _place(self) -> str:
        """The line of this package where the rank's own thread is."""
        frame = sys._current_frames().get(self._main or 0)
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _grouped(places: dict[int, str]) -> list[tuple[str, list[int]]]:
    """The ranks of each place; the odd ones out first."""
    found: dict[str, list[int]] = {}
    for rank, place in sorted(places.items()):
        found.setdefault(place, []).append(rank)
    return sorted(found.items(), key=lambda pair: len(pair[1]))


def numbers_text(ranks: list[int], world: World) -> str:
    """Ranks as messages name them: one with its host, several as ``ranks 1, 4-6``."""
    if len(ranks) == 1:
        return world.named(ranks[0])
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return "ranks " + ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


@contextmanager
def guarded(world: World, limit: float = TIME_LIMIT) -> Iterator[None]:
    """Whatever fails inside on one rank ends the whole job, with one message; and so does the time limit."""
    with Watchdog(limit, world), ending_together(world):
        yield


@contextmanager
def ending_together(world: World) -> Iterator[None]:
    """Whatever fails inside on one rank ends the whole job, with one message that names the rank."""
    try:
        yield
    except Ended:
        raise
    except AthanorError as reason:  # found by this rank alone
        time.sleep(min(world.rank, 20) * TURN)
        abort(world, str(reason), reason.exit_status)
    except KeyboardInterrupt:
        if not world.first:
            time.sleep(GRACE)
        abort(world, "interrupted", 130)
    except SystemExit as leaving:
        abort(world, f"{world.named(world.rank)}: left the job, with sys.exit({leaving.code!r})", 1)
    except Exception as reason:
        import traceback

        where = traceback.extract_tb(reason.__traceback__)[-1]
        time.sleep(min(world.rank, 20) * TURN)  # others may have failed as well: the lowest speaks, and ends the rest
        text = f"{world.named(world.rank)}: {type(reason).__name__}: {reason}"
        abort(world, f"{text} ({where.filename.rpartition('/')[2]}:{where.lineno})", 1)


def abort(world: World, message: str, status: int) -> NoReturn:
    """Say why, and end all ranks; those under this kernel also where the launcher does not."""
    print(f"athanor: {message}", file=sys.stderr, flush=True)
    if world.size > 1:
        _until_read(sys.stderr.fileno())
        threading.Thread(target=_kill_after, args=(world, GRACE, status), daemon=True).start()
        world.comm.Abort(status)
    os._exit(status)


def _kill_after(world: World, seconds: float, status: int) -> None:
    """End the ranks of this kernel where the launcher has not: a rank that is stopped hears no word of its own."""
    time.sleep(seconds)
    for rank, process in enumerate(world.processes):
        if rank != world.rank and world.kernels[rank] == world.kernels[world.rank]:
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue
    os._exit(status)


def _until_read(pipe: int) -> None:
    """Wait until the launcher has read a pipe: it drops what it has not read when it learns of an abort."""
    until = time.monotonic() + GRACE
    while time.monotonic() < until and _unread(pipe):
        time.sleep(0.01)
    time.sleep(TURN)  # read, and not yet passed on


def _unread(pipe: int) -> int:
    """Bytes in a pipe that nobody has read; none where it is not a pipe."""
    count = array("i", [0])
    try:
        ioctl(pipe, FIONREAD, count)
    except OSError:
        return 0
    return count[0] if S_ISFIFO(os.fstat(pipe).st_mode) else 0
