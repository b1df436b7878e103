"""A node: core groups on a ring, their memory, and network interfaces; and what one rank sees of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from .core_group import Array, CoreGroup, Cost
from .precisions import Precision
from .records import Record
from .units import BytesPerSecond


class Node(Record):
    """Core groups joined by a ring, each with its own DRAM channel, and the network interfaces that they share."""

    core_groups: int = Field(gt=0)
    ring_bandwidth: BytesPerSecond
    interfaces: int = Field(gt=0)
    interface_bandwidth: BytesPerSecond

    @property
    def injection(self) -> float:
        """Bytes per second and direction that all network interfaces of the node carry together."""
        return self.interfaces * self.interface_bandwidth


@dataclass(frozen=True)
class Processor:
    """The part of a node that one rank computes on: ``groups`` core groups as one device.

    With one rank a node, memory is interleaved over all core groups, so that (g - 1)/g of all traffic crosses the
    ring; the ring slows memory down where it carries less than that. Source of the interleaving: the HPL-MxP authors'
    "CG-Fusion" (Lin et al., SC23), who found one rank a core group to use the network poorly.
    """

    core_group: CoreGroup
    groups: int
    ring_bandwidth: float
    gemm_efficiency: float

    @property
    def memory(self) -> float:
        """Bytes of memory that belong to the rank."""
        return self.groups * self.core_group.memory

    @property
    def bandwidth_share(self) -> float:
        """Share of the DRAM bandwidth that is left where interleaved traffic has to cross the ring."""
        remote = (self.groups - 1) / self.groups * self.groups * self.core_group.memory_bandwidth
        return min(1.0, self.ring_bandwidth / remote) if remote else 1.0

    def peak(self, precision: Precision) -> float:
        """FLOP/s of all compute cores of the rank."""
        return self.groups * self.core_group.peak[precision]

    def gemm(self, m: ArrayLike, n: float, k: ArrayLike, count: float, precision: Precision) -> Cost:
        """Cost of ``count`` GEMMs of C[m, n] += A[m, k] B[k, n].

        The core groups either split the batch or the columns of each, whichever is faster. Operators launched are
        counted apart (:meth:`launch`).
        """
        rows, depth = np.asarray(m, dtype=np.float64), np.asarray(k, dtype=np.float64)
        share, efficiency = self.bandwidth_share, self.gemm_efficiency
        split = self.core_group.gemm(rows, np.asarray(n / self.groups), depth, precision, efficiency, share)
        if count <= 1 or self.groups == 1:
            return Cost(*(count * part for part in split))
        whole = self.core_group.gemm(rows, np.asarray(float(n)), depth, precision, efficiency, share)
        rounds = float(np.ceil(count / self.groups))
        better = rounds * whole.seconds < count * split.seconds
        return Cost(*(np.where(better, rounds * a, count * b) for a, b in zip(whole, split, strict=True)))

    def sweep(self, size: ArrayLike, read: float, written: float, flops: float, precision: Precision) -> Cost:
        """Cost of an operator that passes once over ``size`` elements, spread over the core groups.

        ``read`` and ``written`` bytes and ``flops`` are for each element.
        """
        mine = np.asarray(size, dtype=np.float64) / self.groups
        return self.core_group.sweep(mine, read, written, flops, precision, self.bandwidth_share)

    def launch(self, operators: int) -> float:
        """Seconds that the management core needs to start so many operators."""
        return operators * self.core_group.operator_overhead

    def scalar(self, steps: ArrayLike) -> Array:
        """Seconds of a serial loop of so many steps on the management core."""
        return np.asarray(steps, dtype=np.float64) * self.core_group.scalar_step
