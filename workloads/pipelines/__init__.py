"""Pipeline schedules: one file each, and one line here."""

from __future__ import annotations

from ...hardware.registry import Registry
from .gpipe import GPipe
from .interleaved import Interleaved
from .never_flushed import streamed
from .one_f_one_b import OneForwardOneBackward
from .order import Kind, Order, Slot, Step, extent, most_in_flight, part_of, place_of, sequence, validate
from .pipedream import PipeDream, TwoBufferedWeights
from .pipeline import Pipeline
from .stage_seconds import PartSeconds, StageSeconds
from .v_shapes import DualPipeV, ZeroBubbleV
from .zero_bubble import ZeroBubbleH1, ZeroBubbleH2

PIPELINES: Registry[Pipeline] = Registry(
    "pipeline",
    {
        each.name: each
        for each in (
            GPipe(),
            OneForwardOneBackward(),
            Interleaved(),
            ZeroBubbleH1(),
            ZeroBubbleH2(),
            ZeroBubbleV(),
            DualPipeV(),
            PipeDream(),
            TwoBufferedWeights(),
        )
    },
    interface=Pipeline,
)
"""Pipeline schedules; :meth:`~athanor.hardware.registry.Registry.find` also takes a user's own."""

find_pipeline = PIPELINES.find

__all__ = [
    "PIPELINES",
    "Kind",
    "Order",
    "PartSeconds",
    "Pipeline",
    "Slot",
    "StageSeconds",
    "Step",
    "extent",
    "find_pipeline",
    "most_in_flight",
    "part_of",
    "place_of",
    "sequence",
    "streamed",
    "validate",
]
