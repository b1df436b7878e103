"""Seconds of measured points by the compute model, for constants that are being fitted and for machines that are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.machine import Machine
from ...hardware.precisions import BYTES, Precision
from ...hardware.tiles import Tiles
from ...workloads.model.flops import causal_share
from ...workloads.schedule.costs import compute_seconds
from ...workloads.schedule.work import FusedAttention, Gemm, Loop, Sweep, Work
from ..calibration.points import BenchPoint
from .points import SWEEPS

Array = NDArray[np.float64]

SHAPED = {
    Gemm: ("m", "n", "k", "count"),
    FusedAttention: ("queries", "keys", "size", "value_size", "count", "share"),
    Sweep: ("size",),
}
"""Fields in which operations differ that are worked out together, as arrays."""


@dataclass(frozen=True)
class Constants:
    """What is fitted, beside the peaks, which are known before.

    ``efficiency`` is the share of its peak that each precision's products reach; ``read`` and ``written`` are bytes per second,
    ``overhead`` the seconds to start an operator. With tiles of ``shapes`` there are ``fill``, the bytes per second of the
    ``cache`` and the share of the peak that fused ``attention`` reaches; without, one efficiency stands for all precisions and
    for attention.
    """

    efficiency: Mapping[Precision, float]
    read: float
    written: float
    overhead: float
    fill: float = 0.0
    cache: float = np.inf
    attention: float = 1.0
    shapes: tuple[tuple[int, int], ...] = ()

    def applied(self, machine: Machine) -> Machine:
        """The machine with these constants; the faster of the bandwidths is the memory's where it exceeds the nominal one."""
        best, known = max(self.efficiency.values()), machine.core_group
        nominal = max(known.memory_bandwidth, self.read, self.written)
        tiles = Tiles.model_construct(
            shapes=self.shapes,
            fill=self.fill,
            cache_bandwidth=self.cache,
            fused_sums=known.tiles.fused_sums if known.tiles else False,
            precisions={kind: share / best for kind, share in self.efficiency.items() if share < best},
            attention=self.attention,
        )
        group = known.model_copy(
            update={
                "memory_bandwidth": nominal,
                "dma_read": self.read / nominal,
                "dma_write": self.written / nominal,
                "operator_overhead": self.overhead,
                "tiles": tiles if self.shapes else None,
                "attention": {},  # what was measured is the kernel that PyTorch chose
            }
        )
        calibration = machine.calibration.model_copy(update={"gemm_efficiency": best})
        return machine.model_copy(update={"core_group": group, "calibration": calibration})


def works(point: BenchPoint) -> tuple[Work, ...]:
    """The operations that a point stands for, as a simulated step has them."""
    detail = point.detail
    match point.kind:
        case "gemm":
            return (Gemm(float(detail["m"]), float(detail["n"]), float(detail["k"]), 1.0, detail["precision"]),)
        case "attention":
            return _attention(detail)
        case "sweep":
            read, written, flops = SWEEPS[detail["operator"]]
            size = BYTES[detail["precision"]]
            return (Sweep(float(detail["elements"]), read * size, written * size, flops, detail["precision"]),)
        case "start":
            return (Sweep(1.0, 4.0, 4.0, 0.0, detail["precision"]),)
    return (Loop(float(point.size)),)


def _attention(detail: Mapping[str, Any]) -> tuple[Work, ...]:
    length, size, count = (float(detail[name]) for name in ("length", "size", "count"))
    precision: Precision = detail["precision"]
    if detail["fused"]:
        share = causal_share(length, length) if detail["causal"] else 1.0
        products = 5 if detail["backward"] else 2
        return (FusedAttention(length, length, size, size, count, products, precision, share),)
    scores, each = count * length * length, BYTES[precision]
    mask = [Sweep(scores, each, each, 1.0, precision)] if detail["causal"] else []
    read, written, flops = SWEEPS["softmax"]
    return (
        Gemm(length, length, size, count, precision),
        *mask,
        Sweep(scores, read * each, written * each, flops, precision),
        Gemm(length, size, length, count, precision),
    )


@dataclass
class Predictor:
    """The seconds of many points at once; operations that differ in their sizes alone are worked out as arrays."""

    points: Sequence[BenchPoint]
    groups: list[tuple[Work, NDArray[np.intp]]] = field(init=False)

    def __post_init__(self) -> None:
        sorted_out: dict[tuple[Any, ...], list[tuple[Work, int]]] = {}
        for number, point in enumerate(self.points):
            for work in works(point):
                shaped = SHAPED.get(type(work), ())
                alike = tuple((name, value) for name, value in vars(work).items() if name not in shaped)
                sorted_out.setdefault((type(work), alike), []).append((work, number))
        self.groups = [(_stacked([work for work, _ in members]), _numbers(members)) for members in sorted_out.values()]

    def seconds(self, machine: Machine) -> Array:
        """Seconds of each point on one of the machine's core groups, with the start of every operator."""
        processor, found = machine.processor(machine.node.core_groups), np.zeros(len(self.points))
        for work, numbers in self.groups:
            np.add.at(found, numbers, compute_seconds(work, processor, machine.calibration).seconds)
        return found


def _stacked(works: Sequence[Work]) -> Work:
    """Operations that are alike but for their sizes, as one whose sizes are arrays."""
    first: Any = works[0]
    arrays = {name: np.array([getattr(work, name) for work in works]) for name in SHAPED.get(type(first), ())}
    stacked: Work = replace(first, **arrays)
    return stacked


def _numbers(members: Sequence[tuple[Work, int]]) -> NDArray[np.intp]:
    return np.array([number for _, number in members], dtype=np.intp)
