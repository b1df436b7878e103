"""A node: its core groups, what joins them, their host, and network interfaces; and what one rank sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from .attention_rates import HALVES, fastest
from .core_group import Array, CoreGroup, Cost
from .errors import InputError
from .framework import Framework
from .precisions import Precision
from .records import Record
from .units import Bytes, BytesPerSecond, Ratio

HOST = ("host_memory", "host_link", "host_memory_bandwidth")
"""What describes a node's host: all of them or none."""


class Node(Record):
    """Core groups, each with its own memory, what joins them inside, their host, and the network interfaces that they share.

    ``inside`` is a ``ring``, one resource of ``ring_bandwidth`` for all of the node's traffic, or a ``switch`` that
    never is the bottleneck itself, to which each core group has a port of ``ring_bandwidth`` in either direction, or ``links``
    from each core group to each other one, of ``ring_bandwidth`` for all of a core group's together and in either direction.
    Of the ``interfaces`` each core group has its share as ``cards`` of its ``own``, or all are ``shared``; where the file does
    not say, GPUs (``inside`` a switch or links) have their own. Where a switch adds up what an all-reduce sends through it, a
    port does so at ``inside_reduction``; with ``network_reduction`` the switches between nodes add up too. Of the rates inside
    and between nodes, a library's all-to-alls reach the shares ``inside_all_to_all`` and ``network_all_to_all``. A host beyond
    the core groups has ``host_memory`` bytes a node, which is read and written at ``host_memory_bandwidth`` in all, and a
    ``host_link`` (PCIe) to each core group, its rate in one direction.
    """

    core_groups: int = Field(gt=0)
    inside: Literal["ring", "switch", "links"] = "ring"
    ring_bandwidth: BytesPerSecond
    inside_reduction: BytesPerSecond | None = None
    inside_all_to_all: Ratio | None = None
    interfaces: int = Field(gt=0)
    interface_bandwidth: BytesPerSecond
    cards: Literal["own", "shared"] | None = None
    network_reduction: bool | None = None
    network_all_to_all: Ratio | None = None
    host_memory: Bytes | None = None
    host_link: BytesPerSecond | None = None
    host_memory_bandwidth: BytesPerSecond | None = None

    @model_validator(mode="after")
    def _host_is_whole(self) -> Node:
        given = [key for key in HOST if getattr(self, key) is not None]
        if given and len(given) < len(HOST):
            missing = ", ".join(key for key in HOST if key not in given)
            raise ValueError(f"has {', '.join(given)} but not {missing}; a host has all three")
        return self

    @model_validator(mode="after")
    def _a_switch_reduces(self) -> Node:
        if self.inside_reduction is not None and self.inside != "switch":
            raise ValueError(f'has inside_reduction, for which inside must be "switch" and not "{self.inside}"')
        return self

    @property
    def ports(self) -> bool:
        """Whether each core group has a port of its own to the others: to a switch, or all of its links together."""
        return self.inside != "ring"

    @property
    def own_cards(self) -> bool:
        """Whether ranks drive the cards that are their share of the node's, and not all of them."""
        return self.ports if self.cards is None else self.cards == "own"

    @property
    def injection(self) -> float:
        """Bytes per second and direction that all network interfaces of the node carry together."""
        return self.interfaces * self.interface_bandwidth


@dataclass(frozen=True)
class Processor:
    """The part of a node that one rank computes on: ``groups`` core groups as one device, and its share of their host.

    With one rank a node, memory is interleaved over all core groups, so that (g - 1)/g of all traffic crosses the
    ring; the ring slows memory down where it carries less than that. Source of the interleaving: the HPL-MxP authors'
    "CG-Fusion" (Lin et al., SC23), who found one rank a core group to use the network poorly. Where the groups are
    joined by a switch, ``ring_bandwidth`` is that of all their ports together.

    ``host_link`` and ``host_bandwidth`` are in bytes per second (the link's in one direction), ``host_memory`` in bytes;
    all are None where the node has no host.
    """

    core_group: CoreGroup
    groups: int
    ring_bandwidth: float
    gemm_efficiency: float
    host_link: float | None = None
    host_bandwidth: float | None = None
    host_memory: float | None = None

    @property
    def memory(self) -> float:
        """Bytes of memory that belong to the rank."""
        return self.groups * self.core_group.memory

    @property
    def reserved_memory(self) -> float:
        """Bytes of it that driver and libraries keep for themselves; 0 where the machine does not say."""
        return self.groups * (self.core_group.reserved_memory or 0.0)

    @property
    def framework(self) -> Framework | None:
        """What training takes beside; None where the machine does not say."""
        return self.core_group.framework

    @property
    def bandwidth_share(self) -> float:
        """Share of the DRAM bandwidth that is left where interleaved traffic has to cross the ring."""
        remote = (self.groups - 1) / self.groups * self.groups * self.core_group.memory_bandwidth
        return min(1.0, self.ring_bandwidth / remote) if remote else 1.0

    def peak(self, precision: Precision) -> float:
        """FLOP/s of all compute cores of the rank."""
        return self.groups * self.core_group.peak[precision]

    def gemm(
        self,
        m: ArrayLike,
        n: float,
        k: ArrayLike,
        count: float,
        precision: Precision,
        onto: int = 0,
        launches: float = 1.0,
    ) -> Cost:
        """Cost of ``count`` GEMMs of C[m, n] += A[m, k] B[k, n].

        ``onto`` are the bytes of an element of the sum in memory to which C is added, 0 where it is new; they are charged on
        accelerators that say how (``core_group.tiles``).
        There they are in so many ``launches``, which share multiprocessors less well than the products of one.
        The core groups either split the batch or the columns of each, whichever is faster. Operators launched are
        counted apart (:meth:`launch`).
        """
        rows, depth = np.asarray(m, dtype=np.float64), np.asarray(k, dtype=np.float64)
        share, efficiency = self.bandwidth_share, self.gemm_efficiency
        if self.core_group.tiles:
            columns = np.asarray(n / self.groups)
            return self.core_group.tiled(rows, columns, depth, count, precision, efficiency, share, onto, launches)
        split = self.core_group.gemm(rows, np.asarray(n / self.groups), depth, precision, efficiency, share)
        if self.groups == 1 or count <= 1:
            return Cost(*(count * part for part in split))
        whole = self.core_group.gemm(rows, np.asarray(float(n)), depth, precision, efficiency, share)
        rounds = float(np.ceil(count / self.groups))
        better = rounds * whole.seconds < count * split.seconds
        return Cost(*(np.where(better, rounds * a, count * b) for a, b in zip(whole, split, strict=True)))

    def fused_attention(self, name: str, size: float, products: int, met: float, precision: Precision) -> float:
        """FLOP/s of a fused kernel of attention by its name, or of the machine's best where it has none.

        ``size`` are the elements of a head, ``met`` the keys that a query meets in the mean. A machine that names no kernels has
        one of no name: at the share of the peak that its file gives, on full scores of which a causal mask leaves half, or at
        that of other GEMMs.
        """
        group = self.core_group
        if not group.attention and not name:
            share = group.tiles.attention if group.tiles else None
            return self.peak(precision) * (self.gemm_efficiency if share is None else share / 2)
        kernel = group.attention[self.attention_kernel(name, size)]
        half = next((each for each in HALVES if each in group.peak), precision)
        as_peak = group.peak[precision] / group.peak[half]
        return self.groups * as_peak * kernel.rate(size, products) / kernel.slowness(met)

    def attention_kernel(self, name: str, size: float) -> str:
        """The kernel that a name stands for: itself, or with none the machine's best for such heads; empty where it has none."""
        known = self.core_group.attention
        return name or (fastest(known, size) if known else "")

    def sweep(
        self, size: ArrayLike, read: float, written: float, flops: float, precision: Precision, streams: bool = False
    ) -> Cost:
        """Cost of an operator that passes once over ``size`` elements, spread over the core groups.

        ``read`` and ``written`` bytes and ``flops`` are for each element; ``streams`` as of :meth:`CoreGroup.sweep`.
        """
        mine = np.asarray(size, dtype=np.float64) / self.groups
        return self.core_group.sweep(mine, read, written, flops, precision, self.bandwidth_share, streams)

    def launch(self, operators: int) -> float:
        """Seconds that the management core needs to start so many operators."""
        return operators * self.core_group.operator_overhead

    def host_launch(self, kernels: float) -> float:
        """Seconds that the host needs to start so many kernels; none where the machine does not say."""
        return kernels * (self.core_group.launch or 0.0)

    def scalar(self, steps: ArrayLike) -> Array:
        """Seconds of a serial loop of so many steps on the management core."""
        return np.asarray(steps, dtype=np.float64) * self.core_group.scalar_step

    def host_copy(self, nbytes: ArrayLike) -> Array:
        """Seconds that ``nbytes`` take over the rank's links to its host, one way; raises :class:`InputError` without a host."""
        return np.asarray(nbytes, dtype=np.float64) / _of_host(self.host_link)

    def host_sweep(self, nbytes: ArrayLike) -> Array:
        """Seconds to read or write ``nbytes`` of host memory at the rank's share of its bandwidth.

        That is what bounds an optimizer that runs on the host. Raises :class:`InputError` without a host.
        """
        return np.asarray(nbytes, dtype=np.float64) / _of_host(self.host_bandwidth)


def _of_host(rate: float | None) -> float:
    if rate is None:
        keys = ", ".join(f"node.{key}" for key in HOST)
        raise InputError(
            f"--offload: the machine's nodes have no host memory beyond that of their core groups ({keys})"
        )
    return rate
