"""Pipeline schedules: one file each, and one line here."""

from __future__ import annotations

from ...hardware.errors import InputError, suggestion
from .gpipe import GPipe
from .interleaved import Interleaved
from .never_flushed import streamed
from .one_f_one_b import OneForwardOneBackward
from .order import Kind, Order, Slot, Step, extent, most_in_flight, sequence, validate
from .pipedream import PipeDream, TwoBufferedWeights
from .pipeline import Pipeline
from .stage_seconds import PartSeconds, StageSeconds
from .zero_bubble import ZeroBubbleH1, ZeroBubbleH2

PIPELINES: dict[str, Pipeline] = {
    each.name: each
    for each in (
        GPipe(),
        OneForwardOneBackward(),
        Interleaved(),
        ZeroBubbleH1(),
        ZeroBubbleH2(),
        PipeDream(),
        TwoBufferedWeights(),
    )
}


def find_pipeline(name: str) -> Pipeline:
    """The schedule of that name; raises :class:`InputError` for an unknown one."""
    if name not in PIPELINES:
        raise InputError(f"--pipeline {name}: no such pipeline{suggestion(name, PIPELINES)}")
    return PIPELINES[name]


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
    "sequence",
    "streamed",
    "validate",
]
