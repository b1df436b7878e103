"""Plots of scaling studies: speed-up or FLOP/s over nodes, beside the ideal and what was published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from ...hardware.units import si
from ..content.colours import COLOURS
from ..content.scaling import grown, study_title
from ..content.words import count_text
from .style import (
    INK,
    PUBLISHED,
    SMALL,
    blank,
    chosen_ticks,
    labelled,
    legend_below,
    number_axis,
    plain,
    rate_unit,
    titled,
)

if TYPE_CHECKING:
    from ...sim.studies.scaling import Study

LEAST_APART = 0.13
"""Ticks closer than this share of the axis would run into each other."""


def scaling(study: Study, published: float | None = None, note: str = "") -> Figure:
    """The curve of a study of either kind; see :func:`strong_scaling` and :func:`weak_scaling`."""
    return (strong_scaling if study.kind == "strong" else weak_scaling)(study, published, note)


def strong_scaling(study: Study, published: float | None = None, note: str = "") -> Figure:
    """Speed-up over the smallest run, with the ideal line.

    ``published`` is a measured speed-up on the largest node count; ``note`` says whether the simulation was fitted to it.
    """
    figure, axes = blank()
    nodes = [point.nodes for point in study.points]
    axes.plot(nodes, [count / nodes[0] for count in nodes], "--", color=INK, lw=1, label="ideal")
    axes.plot(nodes, [point.speedup for point in study.points], "o-", color=COLOURS["compute"], label="simulated")
    for point in study.points[1:]:
        _note(axes, f"{point.efficiency:.0%}", point.nodes, point.speedup)
    if published:
        label = f"published ({published:g}x{note})"
        axes.plot(nodes[-1], published, "*", ms=13, color=PUBLISHED, label=label, zorder=5)
    chosen_ticks(axes.xaxis, nodes)
    chosen_ticks(axes.yaxis, [count / nodes[0] for count in nodes], lambda value: f"{value:,.3g}x")
    axes.set_ylabel(f"speed-up over {nodes[0]:,} nodes")
    return _finished(figure, axes, study)


def weak_scaling(study: Study, published: float | None = None, note: str = "") -> Figure:
    """FLOP/s, with the line of the smallest run's rate a node; below each node count the parameters, where they grow.

    ``published`` is measured on the largest node count; ``note`` says whether the simulation was fitted to it.
    """
    figure, axes = blank()
    nodes = [point.nodes for point in study.points]
    rates = [point.summary["flops_per_second"] for point in study.points]
    unit, name = rate_unit(rates[-1], "FLOP/s")
    # Gate FLOPs grow with the experts, so the ideal is the last point's work at the smallest run's efficiency.
    ideal = [rate / point.efficiency / unit for rate, point in zip(rates, study.points, strict=True)]
    axes.plot(nodes, ideal, "--", color=INK, lw=1, label="ideal")
    axes.plot(nodes, [rate / unit for rate in rates], "o-", color=COLOURS["compute"], label="simulated")
    for point, rate in list(zip(study.points, rates, strict=True))[1:]:
        _note(axes, f"{point.efficiency:.1%}", point.nodes, rate / unit)
    if published:
        label = f"published ({si(published, 'FLOP/s')}{note})"
        axes.plot(nodes[-1], published / unit, "*", ms=13, color=PUBLISHED, label=label, zorder=5)
    axes.set_xlim(0, 1.06 * nodes[-1])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(FixedLocator(_apart(nodes, nodes[-1])))
    sizes = {point.nodes: f"\n{count_text(point.summary['parameters']['total'])}" for point in study.points}
    grows = len(set(sizes.values())) > 1
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain(x) + (sizes.get(round(x), "") if grows else "")))
    number_axis(axes.yaxis)
    axes.set_ylabel(name)
    figure = _finished(figure, axes, study)
    if grows:
        axes.set_xlabel("nodes, and parameters of the model there")
    return figure


def _apart(nodes: Sequence[int], most: int) -> list[int]:
    """Node counts from the largest down, those left out that are too close to the one before."""
    kept: list[int] = []
    for count in reversed(nodes):
        if not kept or kept[-1] - count >= LEAST_APART * most:
            kept.append(count)
    return kept[::-1]


def _note(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), textcoords="offset points", xytext=(2, -13), ha="center", fontsize=SMALL, color=INK)


def _finished(figure: Figure, axes: Axes, study: Study) -> Figure:
    """Labels and title that scaling plots share."""
    axes.set_xlabel("nodes")
    titled(axes, f"{study_title(study)}\n{grown(study)}")
    legend_below(figure, labelled(axes))
    return figure
