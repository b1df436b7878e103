"""What computes on a rank: a virtual accelerator that only takes its time, or this computer with NumPy."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..hardware.machine import Machine
from ..workloads.model.number_types import TYPES
from ..workloads.schedule.costs import Costs
from ..workloads.schedule.work import (
    Bookkeeping,
    Exchange,
    FusedAttention,
    Gemm,
    HostCopy,
    HostSweep,
    Launches,
    Loop,
    PipelineWork,
    Sweep,
    Work,
    at,
)
from .messages.streams import Until


class Device(Protocol):
    """Computes operations of one rank, one after another."""

    def begin(self) -> float:
        """The moment at which the next operation can begin."""

    def compute(self, work: Work, coordinate: tuple[int, ...]) -> float:
        """Compute an operation, or begin to; returns the moment at which it has ended or will end."""

    def finish(self) -> Generator[Until, None, None]:
        """Wait until everything begun has ended."""


class Sleeping:
    """A virtual accelerator: operations take as long as the machine's model says, and nothing is computed.

    Like a real one it runs ahead of nobody and beside the host: an operation begins when it is handed over and the one before it
    has ended. So many ranks can share a few cores, and no delay of theirs adds up: Linux ends a sleep some 50 us late, but only
    the last one before an exchange counts. (Sharper timers all the time, not in these sleeps alone, would make MPICH's yielding
    ranks poll so fast that they take the cores from the network.)
    """

    def __init__(self, machine: Machine, ranks_per_node: int) -> None:
        self.costs = Costs(machine, ranks_per_node)
        self.free = 0.0

    def begin(self) -> float:
        """Now, or when the last operation has ended."""
        return max(self.free, time.perf_counter())

    def compute(self, work: Work, coordinate: tuple[int, ...]) -> float:
        """Take the time that the model gives the operation on this rank."""
        self.free = self.begin() + at(self.costs.of(work).seconds, coordinate)
        return self.free

    def finish(self) -> Generator[Until, None, None]:
        """Sleep until the accelerator is idle."""
        yield Until(self.free)


class Computing:
    """The computer itself: the operation's real shapes, their rows times ``scale``, in NumPy."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._arrays: dict[tuple[str, str], NDArray[Any]] = {}

    def begin(self) -> float:
        """Now."""
        return time.perf_counter()

    def compute(self, work: Work, coordinate: tuple[int, ...]) -> float:
        """Compute it on arrays of no meaning."""
        match work:
            case Gemm():
                self.gemm(
                    at(work.m, coordinate) * self.scale, work.n, at(work.k, coordinate), work.count, work.precision
                )
            case FusedAttention():
                size, value, keys = work.size, work.value_size, work.keys * work.share
                for each in range(work.products):
                    n = keys if each % 2 == 0 else value
                    k = size if each % 2 == 0 else keys
                    self.gemm(work.queries * self.scale, n, k, at(work.count, coordinate), work.precision)
            case Sweep():
                size = at(work.size, coordinate) * self.scale
                self.sweep(int(size * work.read), int(size * work.written))
            case Launches():
                pass  # starting what it computes is part of computing it
            case Loop():
                for _ in range(round(at(work.steps, coordinate) * self.scale)):
                    pass
            case Bookkeeping():
                self.sweep(0, int(4 * at(work.parameters, coordinate) * self.scale))
            case Exchange() | PipelineWork() | HostCopy() | HostSweep():
                raise TypeError(f"{work} is nothing that this computer computes")
        return time.perf_counter()

    def finish(self) -> Generator[Until, None, None]:
        """Nothing is under way."""
        yield from ()

    def gemm(self, m: float, n: float, k: float, count: float, precision: str) -> None:
        """``count`` products C[m, n] = A[m, k] B[k, n]."""
        rows, columns, depth = round(m), round(n), round(k)
        if not rows or not depth:
            return
        kind = "fp64" if precision == "fp64" else "fp32"
        a = self._array("a", kind, rows * depth).reshape(rows, depth)
        b = self._array("b", kind, depth * columns).reshape(depth, columns)
        c = self._array("c", kind, rows * columns).reshape(rows, columns)
        for _ in range(max(1, round(count))):
            np.matmul(a, b, out=c)

    def sweep(self, read: int, written: int) -> None:
        """Read and write so many bytes, the smaller number of both as a copy."""
        source, target = self._array("source", "fp32", read // 4), self._array("target", "fp32", written // 4)
        both = min(len(source), len(target))
        np.copyto(target[:both], source[:both])
        target[both:] = 0.0
        if len(source) > both:
            source[both:].max()

    def _array(self, name: str, kind: str, size: int) -> NDArray[Any]:
        """A reused array of ones of at least that size."""
        if (held := self._arrays.get((name, kind))) is None or len(held) < size:
            held = self._arrays[name, kind] = np.ones(size, dtype=TYPES[kind])
        return held[:size]
