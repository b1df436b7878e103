"""Seconds of an operation's work on one rank's processor, and what limits them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...hardware.core_group import Cost
from ...hardware.errors import InputError
from ...hardware.machine import Calibration, Machine
from ...hardware.node import Processor
from ...hardware.precisions import BYTES
from .work import Bookkeeping, FusedAttention, Gemm, HostCopy, HostSweep, Launches, Loop, Sweep, Work

Array = NDArray[np.float64]


class Timed(NamedTuple):
    """Seconds of each rank (broadcasting over the mesh), and the resource that takes most of them on the slowest."""

    seconds: Array
    limit: str


MOST_KEPT = 24 << 20
"""Bytes of seconds by rank that are kept: those of the latest operations, whose amounts come again."""

MANY = 4096
"""Ranks from which on products with equally many rows are looked for."""


class Costs:
    """Seconds of compute work on a machine, worked out once for what comes again.

    Amounts that are arrays come again where they are the same object, as in the passes through a layer. Of products whose rows
    are whole numbers, as tokens are, each number of rows is worked out once.
    """

    def __init__(self, machine: Machine, ranks_per_node: int, present: int | None = None) -> None:
        self.processor, self.calibration = machine.processor(ranks_per_node, present), machine.calibration
        self._known: dict[Work, Timed] = {}
        self._slowest: dict[Work, float] = {}
        self._kept: dict[tuple[object, ...], tuple[Work, Timed]] = {}
        self._kept_bytes = 0
        self._equal: dict[int, tuple[Array, Equal | None]] = {}

    def of(self, work: Work) -> Timed:
        """Seconds of an operation on each rank."""
        values = vars(work).values()
        if not any(isinstance(amount, np.ndarray) for amount in values):
            if work not in self._known:
                self._known[work] = compute_seconds(work, self.processor, self.calibration)
            return self._known[work]
        key = (type(work), *(id(each) if isinstance(each, np.ndarray) else each for each in values))
        if key in self._kept:
            return self._kept[key][1]
        timed = self._by_rank(work)
        self._kept[key] = work, timed  # with the work, so that no other array comes to have its number
        self._kept_bytes += timed.seconds.nbytes
        while self._kept_bytes > MOST_KEPT:
            self._kept_bytes -= self._kept.pop(next(iter(self._kept)))[1].seconds.nbytes
        return timed

    def slowest(self, work: Work) -> float:
        """Seconds of an operation on the rank that takes longest."""
        try:
            found = self._slowest.get(work)
        except TypeError:  # amounts that differ from rank to rank
            return float(np.max(self.of(work).seconds))
        if found is None:
            found = self._slowest[work] = float(np.max(self.of(work).seconds))
        return found

    def _by_rank(self, work: Work) -> Timed:
        """Of work whose amounts differ."""
        amounts = {name: each for name, each in vars(work).items() if isinstance(each, np.ndarray)}
        if isinstance(work, Gemm) and len(amounts) == 1:
            ((name, amount),) = amounts.items()
            if (equal := self._equals(amount)) is not None:
                values: dict[str, Any] = {name: equal.values}
                few = compute_seconds(replace(work, **values), self.processor, self.calibration)
                return Timed(few.seconds[equal.place], few.limit)
        return compute_seconds(work, self.processor, self.calibration)

    def _equals(self, amount: Array) -> Equal | None:
        """The distinct values of an amount; kept as its products' seconds are, since a layer's passes have the same."""
        if amount.size < MANY:
            return None
        if id(amount) not in self._equal:
            self._equal[id(amount)] = amount, Equal.of(amount)
            if len(self._equal) * amount.nbytes > MOST_KEPT:
                del self._equal[next(iter(self._equal))]
        return self._equal[id(amount)][1]


class Equal(NamedTuple):
    """Some values, and for each element of an array which of them it has."""

    values: Array
    place: NDArray[np.int64]

    @classmethod
    def of(cls, amount: Array) -> Equal | None:
        """Those of an array of whole numbers, each below its size once; None where there are few equal ones to find."""
        whole = amount.astype(np.int64)
        if whole.min() < 0 or (whole != amount).any():
            return None
        if int(whole.max()) < amount.size:
            there = np.flatnonzero(np.bincount(whole.reshape(-1)))
            if 4 * len(there) > amount.size:
                return None
            return cls(there.astype(np.float64), _numbers(there)[whole])
        low = whole < amount.size
        there = np.flatnonzero(np.bincount(whole[low]))
        high = amount[~low]
        if 4 * (len(there) + len(high)) > amount.size:
            return None
        place = np.empty(amount.shape, dtype=np.int64)
        place[low] = _numbers(there)[whole[low]]
        place[~low] = len(there) + np.arange(len(high))
        return cls(np.concatenate([there.astype(np.float64), high]), place)


def _numbers(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """At each of some rising whole numbers, which of them it is."""
    number = np.empty(int(values[-1]) + 1 if len(values) else 0, dtype=np.int64)
    number[values] = np.arange(len(values))
    return number


def compute_seconds(work: Work, processor: Processor, calibration: Calibration) -> Timed:
    """Seconds of a compute operation, its start by the management core included."""
    match work:
        case Gemm():
            _require(processor, work.precision)
            cost = processor.gemm(work.m, work.n, work.k, work.count, work.precision, work.onto, work.launches)
            if work.cast_from:
                cast = processor.sweep(work.count * work.m * work.k, *_casting(work), 0.0, work.precision)
                cost = Cost(cost.seconds + cast.seconds, cost.compute, cost.memory + cast.memory)
            return _launched(cost, processor)
        case FusedAttention():
            _require(processor, work.precision)
            return _launched(_attention(work, processor), processor)
        case Sweep():
            _require(processor, work.precision)
            passed = processor.sweep(work.size, work.read, work.written, work.each, work.precision, work.streams)
            return _launched(passed, processor)
        case Loop():
            return Timed(processor.scalar(work.steps), "management core")
        case Launches():
            return Timed(np.asarray(processor.host_launch(work.kernels)), "start of kernels on the host")
        case Bookkeeping():
            seconds = np.asarray(work.parameters) * calibration.update_overhead + work.shards * (
                calibration.shard_overhead or 0.0
            )
            return Timed(seconds, "framework")
        case HostCopy():
            return Timed(processor.host_copy(work.nbytes), "host link")
        case HostSweep():
            return Timed(processor.host_sweep(np.asarray(work.size) * work.nbytes), "host memory")
    raise TypeError(f"{work} is no compute operation")


def _casting(work: Gemm) -> tuple[float, float]:
    """Bytes of an element of A read and written to bring it to the product's format, by rows and by columns."""
    assert work.cast_from
    return float(BYTES[work.cast_from]), 2.0 * BYTES[work.precision]


def _attention(work: FusedAttention, processor: Processor) -> Cost:
    """The products at the rate of such kernels, or what goes to and from memory, whichever takes longer."""
    size, met = (work.size + work.value_size) / 2, work.keys * work.share
    products = np.asarray(work.flops) / processor.fused_attention(work.kernel, size, work.products, met, work.precision)
    moved = processor.sweep(work.elements, BYTES[work.precision] / 2, BYTES[work.precision] / 2, 0.0, work.precision)
    return Cost(np.maximum(products, moved.memory), products, moved.memory)


def _launched(cost: Cost, processor: Processor) -> Timed:
    """A cost and the start of its operator, which ranks that have nothing to do are spared."""
    overhead = processor.launch(1)
    compute, memory = float(cost.compute.max()), float(cost.memory.max())
    limit = "start of operators" if overhead > max(compute, memory) else "compute" if compute >= memory else "memory"
    seconds = np.asarray(cost.seconds + overhead)
    idle = cost.seconds <= 0
    if idle.any():
        seconds[idle] = 0.0
    return Timed(seconds, limit)


def _require(processor: Processor, precision: str) -> None:
    if precision not in processor.core_group.peak:
        known = ", ".join(processor.core_group.peak)
        raise InputError(f"--precision: the machine has no {precision} ({known}); O0 computes in fp32")
