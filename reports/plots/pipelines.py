"""Pictures of pipelines: what each stage does when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .style import INK

if TYPE_CHECKING:
    from ...sim.engine.pipeline_timing import Timing

KINDS = {
    "F": ("#33658a", "#7fa8c4", "forward"),
    "B": ("#f6ae2d", "#fad58f", "backward"),
    "W": ("#4f9d69", "#a7d0b4", "weights"),
}
"""Colours of a stage's first chunk and of its others, and what a slot of the kind is called."""


def pipeline_orders(timings: Mapping[str, Timing], until: float) -> Figure:
    """The slots of each pipeline by title, one below the other, as far as ``until`` seconds; numbers are micro-batches.

    Clocks must be plain numbers.
    """
    rows = [len(timing.orders) + 1.2 for timing in timings.values()]
    figure = Figure(figsize=(11, 0.2 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(timings), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (title, timing) in zip(panels, timings.items(), strict=True):
        _slots(axes, timing, until)
        axes.set_title(title, loc="left", fontsize=8, pad=2)
        axes.set_xlim(0, until)
        axes.set_ylim(len(timing.orders), 0)
        axes.set_yticks([stage + 0.5 for stage in range(len(timing.orders))], map(str, range(len(timing.orders))))
        axes.tick_params(labelsize=6, length=0)
        axes.spines[:].set_visible(False)
    panels[-1].set_xlabel("time, in forward passes of a stage", fontsize=8)
    handles = [Patch(color=first, label=name) for first, _, name in KINDS.values()]
    handles += [Patch(color=others, label=f"{name}, second chunk") for _, others, name in KINDS.values()]
    figure.legend(handles=handles, ncols=len(handles), loc="outside upper center", fontsize=7, frameon=False)
    return figure


def _slots(axes: Axes, timing: Timing, until: float) -> None:
    """Boxes with the numbers of micro-batches."""
    for stage, order in enumerate(timing.orders):
        for slot, *span in zip(order, timing.begin[stage], timing.end[stage], strict=True):
            begin, end = map(float, span)
            if begin < until:
                first, others, _ = KINDS[slot.kind]
                colour = others if slot.chunk else first
                axes.broken_barh([(begin, end - begin)], (stage + 0.05, 0.9), color=colour, edgecolor="white", lw=0.6)
                middle, ink = (begin + end) / 2, "white" if slot.kind != "B" and not slot.chunk else INK
                made = axes.text(middle, stage + 0.52, str(slot.micro_batch), ha="center", va="center", fontsize=5)
                made.set(color=ink, clip_on=True)
