"""Seconds of an operation's work on one rank's processor, and what limits them."""

from __future__ import annotations

from typing import NamedTuple

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


class Costs:
    """Seconds of compute work on a machine; layers repeat, so what is the same on all ranks is worked out once."""

    def __init__(self, machine: Machine, ranks_per_node: int, present: int | None = None) -> None:
        self.processor, self.calibration = machine.processor(ranks_per_node, present), machine.calibration
        self._known: dict[Work, Timed] = {}

    def of(self, work: Work) -> Timed:
        """Seconds of an operation on each rank."""
        if any(isinstance(amount, np.ndarray) for amount in vars(work).values()):
            return compute_seconds(work, self.processor, self.calibration)
        if work not in self._known:
            self._known[work] = compute_seconds(work, self.processor, self.calibration)
        return self._known[work]


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
            return _launched(processor.sweep(work.size, work.read, work.written, work.each, work.precision), processor)
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
    return Timed(np.where(cost.seconds > 0, cost.seconds + overhead, 0.0), limit)


def _require(processor: Processor, precision: str) -> None:
    if precision not in processor.core_group.peak:
        known = ", ".join(processor.core_group.peak)
        raise InputError(f"--precision: the machine has no {precision} ({known}); O0 computes in fp32")
