"""Bytes that an operation of a schedule reads and writes, as a machine sees them that is slow at one of both and nothing else."""

from functools import lru_cache

from athanor.hardware.core_group import CoreGroup
from athanor.hardware.node import Processor
from athanor.hardware.tiles import Tiles
from athanor.workloads.schedule.costs import compute_seconds

ENDLESS = 1e30
PRECISIONS = ("fp64", "fp32", "fp16", "bf16", "fp8")


@lru_cache
def processor(read, write, tiles):
    """A processor that reads and writes so many bytes a second, and computes in no time; products as on GPUs, or by panels."""
    shape = Tiles(shapes=((1 << 20, 1 << 20),), fill=0.0, cache_bandwidth=ENDLESS, fused_sums=True, attention=1.0)
    group = CoreGroup(
        management_cores=0,
        compute_cores=1,
        clock=1e9,
        peak=dict.fromkeys(PRECISIONS, ENDLESS),
        memory=1e9,
        memory_bandwidth=max(read, write),
        dma_read=read / max(read, write),
        dma_write=write / max(read, write),
        local_memory=1e15,
        pooled_local_memory=True,
        double_buffering=False,
        operator_overhead=0.0,
        scalar_step=1.0,
        tiles=shape if tiles else None,
    )
    return Processor(group, groups=1, ring_bandwidth=ENDLESS, gemm_efficiency=1.0)


@lru_cache
def weigh(work, tiles=True):
    """(bytes read, bytes written) of an operation: seconds on machines where a byte takes one second."""
    return tuple(
        float(compute_seconds(work, processor(*rates, tiles), None).seconds)
        for rates in ((1.0, ENDLESS), (ENDLESS, 1.0))
    )
