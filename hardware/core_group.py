"""A core group: one management core, an array of compute cores, their local memories, and DMA to one DRAM channel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .attention_rates import AttentionRate
from .framework import Framework
from .precisions import BYTES, Precision
from .records import Record
from .tiles import Tiles
from .units import Bytes, BytesPerSecond, FlopsPerSecond, Hertz, Ratio, Seconds, SecondsOrZero

Array = NDArray[np.float64]

PANEL = 128
"""Depth (in elements of k) of the panels that a GEMM streams: in fp16 two 128-byte DMA lines, below which DMA slows down."""


class Cost(NamedTuple):
    """Seconds of an operator, and those of them that each resource would need alone (arrays of one shape)."""

    seconds: Array
    compute: Array
    memory: Array


class CoreGroup(Record):
    """One core group of a Sunway-like processor, or any block of cores that shares a memory channel.

    A GEMM follows a roofline that is blocked for the local memories: C stays in a tile as large as they allow, panels of A and
    B stream past it by DMA, and double buffering hides the shorter of computing and streaming. Memory-bound operators cost
    their bytes at the DMA's read and write rates. Rates are those of the whole group; times are seconds. Passes over whole
    vectors, of which every byte is counted, are at the share ``streaming`` of the bandwidth where it is given: what is fitted
    for all others also stands for traffic that is not counted. Of its ``memory``, driver and libraries keep ``reserved_memory``
    for themselves; ``framework`` says what training takes beside. Where the group is a GPU, ``tiles`` says how its products run
    instead, and ``attention`` what fused kernels of attention reach, by the names that ``--attention`` takes. ``launch`` is a
    host's time to start one kernel, which it does while earlier ones run; ``operator_overhead`` is what the accelerator itself
    loses between two. Machines whose groups name the same ``accelerator`` share what is fitted to it.
    """

    management_cores: int = Field(ge=0)
    compute_cores: int = Field(gt=0)
    clock: Hertz
    peak: dict[Precision, FlopsPerSecond]
    memory: Bytes
    reserved_memory: Bytes | None = None
    memory_bandwidth: BytesPerSecond
    dma_read: Ratio
    dma_write: Ratio
    streaming: Ratio | None = None
    local_memory: Bytes
    pooled_local_memory: bool
    double_buffering: bool
    operator_overhead: SecondsOrZero
    launch: SecondsOrZero | None = None
    vector: FlopsPerSecond | None = None
    scalar_step: Seconds
    accelerator: str | None = None
    tiles: Tiles | None = None
    attention: dict[str, AttentionRate] = {}
    framework: Framework | None = None

    @model_validator(mode="after")
    def _has_peaks(self) -> CoreGroup:
        if not self.peak:
            raise ValueError("peak names no precision")
        return self

    @property
    def cores(self) -> int:
        """Management and compute cores together."""
        return self.management_cores + self.compute_cores

    @property
    def read_bandwidth(self) -> float:
        """Bytes per second that DMA reads when all compute cores stream."""
        return self.memory_bandwidth * self.dma_read

    @property
    def write_bandwidth(self) -> float:
        """Bytes per second that DMA writes when all compute cores stream."""
        return self.memory_bandwidth * self.dma_write

    def gemm_tile(self, m: Array, n: Array, precision: Precision) -> tuple[Array, Array]:
        """Rows and columns of the C tile that fits the local memory beside its (double-buffered) panels of A and B.

        Where one side of C is shorter than the square tile, the other side takes the room that it leaves.
        """
        accumulator = 8 if precision == "fp64" else 4
        panel = (2 if self.double_buffering else 1) * PANEL * BYTES[precision]
        room = self.local_memory * (self.compute_cores if self.pooled_local_memory else 1)
        square = (np.sqrt(panel**2 + accumulator * room) - panel) / accumulator  # accumulator·b² + 2·panel·b = room
        rows, columns = np.minimum(m, square), np.minimum(n, square)
        longer_rows = np.minimum(m, (room - panel * columns) / (accumulator * columns + panel))
        longer_columns = np.minimum(n, (room - panel * rows) / (accumulator * rows + panel))
        return np.maximum(rows, longer_rows), np.maximum(columns, longer_columns)

    def gemm(
        self, m: Array, n: Array, k: Array, precision: Precision, efficiency: float, bandwidth: float = 1.0
    ) -> Cost:
        """Cost of C[m, n] = A[m, k] B[k, n]; ``bandwidth`` is the share of the memory bandwidth that is there.

        ``efficiency`` is the share of the peak that the kernel reaches when no DMA holds it up. Arrays broadcast; a
        GEMM without rows, columns or depth costs nothing.
        """
        there = (m > 0) & (n > 0) & (k > 0)
        rows, columns = self.gemm_tile(np.maximum(m, 1.0), np.maximum(n, 1.0), precision)
        size = BYTES[precision]
        read = size * (m * k * np.ceil(n / columns - 1e-9) + n * k * np.ceil(m / rows - 1e-9))
        first_panel = np.where(there, size * (rows + columns) * np.minimum(k, PANEL), 0.0)
        compute = 2.0 * m * n * k / (self.peak[precision] * efficiency)
        memory = (read / self.read_bandwidth + size * m * n * (k > 0) / self.write_bandwidth) / bandwidth
        fill = first_panel / self.read_bandwidth / bandwidth
        seconds = np.maximum(compute, memory) + fill if self.double_buffering else compute + memory
        return Cost(seconds, compute, memory)

    def tiled(
        self,
        m: Array,
        n: Array,
        k: Array,
        count: float,
        precision: Precision,
        efficiency: float,
        bandwidth: float = 1.0,
        onto: int = 0,
        launches: float = 1.0,
    ) -> Cost:
        """Cost of ``count`` GEMMs in so many launches by :attr:`tiles`; arguments as of :meth:`gemm`.

        ``onto`` bytes an element are the sum to which C is added: by the product itself, which then reads and writes them in
        place of C, or by a sweep after it.
        """
        assert self.tiles is not None
        there = (m > 0) & (n > 0) & (k > 0)
        m, n, k = (np.where(there, side, 0.0) for side in (m, n, k))
        read, write = self.read_bandwidth * bandwidth, self.write_bandwidth * bandwidth
        rate = self.peak[precision] * efficiency
        compute = self.tiles.seconds(m, n, k, count, precision, rate, self.compute_cores, write, launches)
        size, sums = BYTES[precision], count * m * n
        memory = count * size * (m + n) * k / read + sums * size / write
        after = np.zeros_like(memory)
        if onto and self.tiles.fused_sums:
            memory = count * size * (m + n) * k / read + sums * onto * (1 / read + 1 / write)
        elif onto:
            after = sums * ((size + onto) / read + onto / write)
        seconds = np.maximum(compute, memory) + after
        return Cost(np.where(there, seconds, 0.0), np.where(there, compute, 0.0), memory + after)

    def sweep(
        self,
        size: Array,
        read: float,
        written: float,
        flops: float,
        precision: Precision,
        bandwidth: float = 1.0,
        streams: bool = False,
    ) -> Cost:
        """Cost of passing once over ``size`` elements: the bytes that each takes, or its FLOPs where they take longer.

        It ``streams`` where the elements are one vector after another, all of whose traffic is counted.
        """
        if streams and self.streaming is not None:
            moving = (read + written) / (self.memory_bandwidth * self.streaming) / bandwidth
        else:
            moving = (read / self.read_bandwidth + written / self.write_bandwidth) / bandwidth
        computing = flops / (self.vector or self.peak[precision])
        memory, compute = size * moving, size * computing
        return Cost(memory if moving >= computing else compute, compute, memory)
