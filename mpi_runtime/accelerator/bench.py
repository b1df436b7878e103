"""PyTorch's bench: points run on a device, timed by its own events, or by a clock of the processor."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice

from ..calibration.compute import action
from ..calibration.points import BenchPoint
from ..calibration.samples import SWITCHES
from ..devices import Computing
from ..job.host import Moment
from .device import MeasuredDevice
from .measure import Runner, Unable
from .operators import Operator, operators

QUEUE, QUEUE_SLOW = 4e-5, 2e-4
"""Seconds for each operator for which a GPU is kept busy before a sample, so that the host has handed over all of them.

The second is for those that the host takes long over: backward passes, and an optimizer's step.
"""

CYCLES = 1.5e9
"""Cycles a second, nearly, that a GPU waits in."""

MOST_WAIT = 0.05


class TorchBench:
    """Runs points on a device.

    A GPU's samples lie between two of its events, with the operators already queued: they tell the GPU's time, not the host's.
    Starts of operators are timed by the host. On a processor with one thread the clock is the process's own, which others
    on this computer hardly disturb; with more it is that of the wall, and samples in which a thread was switched are rejected.
    """

    def __init__(self, device: MeasuredDevice) -> None:
        self.device, self.torch = device, device.torch
        self.alone = device.kind == "cpu" and device.processors == 1
        self.clock = time.process_time if self.alone else time.perf_counter

    def now(self) -> float:
        """Seconds of the wall's clock."""
        return time.monotonic()

    def ready(self, point: BenchPoint) -> Runner:
        """A point's operands, and what runs it; raises :class:`Unable` where it does not fit or cannot run."""
        if point.kind == "loop":
            return self._by_clock(point, [])
        with self._unable():
            made = operators(self.device, point)
        by_events = self.device.kind == "cuda" and point.kind != "start"
        return self._by_events(point, made) if by_events else self._by_clock(point, made)

    @contextmanager
    def _unable(self) -> Iterator[None]:
        """What PyTorch refuses, as :class:`Unable` with the reason in a few words; memory that it keeps is given back."""
        try:
            yield
        except (MemoryError, RuntimeError, NotImplementedError) as reason:
            if self.device.kind == "cuda":
                self.torch.cuda.empty_cache()
            short = isinstance(reason, MemoryError) or "memory" in str(reason).lower()
            raise Unable("too little memory" if short else "no such operator") from None

    def _by_clock(self, point: BenchPoint, made: Sequence[Operator]) -> Runner:
        turns, loop = cycle(made), action(point, Computing()) if point.kind == "loop" else None

        def run(repeats: int) -> tuple[float, str]:
            with _still(), self._unable():
                before, begin = Moment.now(), self.clock()
                if loop:
                    loop(repeats)
                for operator in islice(turns, 0 if loop else repeats):
                    operator()
                self._wait()
                seconds, after = self.clock() - begin, Moment.now()
            switched = not self.alone and after.switches - before.switches > SWITCHES * seconds
            return max(seconds, 1e-9) / repeats, "switched" if switched else ""

        return run

    def _by_events(self, point: BenchPoint, made: Sequence[Operator]) -> Runner:
        turns, cuda = cycle(made), self.torch.cuda
        slow = point.detail.get("backward") or point.detail.get("operator") == "Adam"
        queue = QUEUE_SLOW if slow else QUEUE

        def run(repeats: int) -> tuple[float, str]:
            with _still(), self._unable(), cuda.device(self.device.index):
                begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
                self._busy(queue * repeats)
                begin.record()
                for operator in islice(turns, repeats):
                    operator()
                end.record()
                end.synchronize()
            return max(1e-3 * float(begin.elapsed_time(end)), 1e-9) / repeats, ""

        return run

    def _busy(self, seconds: float) -> None:
        """Keep the GPU waiting while the host queues; where PyTorch has no such wait, the host's pace may count."""
        wait = getattr(self.torch.cuda, "_sleep", None)
        if wait:
            wait(int(CYCLES * min(MOST_WAIT, seconds)))

    def _wait(self) -> None:
        if self.device.kind == "cuda":
            self.torch.cuda.synchronize(self.device.index)


@contextmanager
def _still() -> Iterator[None]:
    """No garbage is collected in the middle of a sample."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
