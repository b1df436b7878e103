"""Plots of a plan search: the front of time against memory, and what parts of the machine would give."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from ..content.colours import COLOURS, SERIES
from .style import GRID, INK, blank, labelled, legend_below, names_left, number_axis, percent_axis, seconds, titled


def front(found: dict[str, Any]) -> Figure:
    """Step time against the memory of a rank: the front as a line, other plans as points, and what a rank has."""
    figure, axes = blank()
    others = [*found["plans"], *found["by_mesh"]]
    size = [plan["memory_per_rank_bytes"]["total"] / 1e9 for plan in others]
    axes.plot(size, [plan["step_seconds"] for plan in others], ".", color=COLOURS["imbalance"], label="other plans")
    best = [(plan["memory_per_rank_bytes"]["total"] / 1e9, plan["step_seconds"]) for plan in found["front"]]
    if best:
        axes.plot(*zip(*best, strict=True), "o-", color=COLOURS["compute"], label="plans that none beats in both")
    axes.axvline(found["memory_bytes"] / 1e9, color=INK, ls="--", lw=1, label="memory of a rank")
    axes.set_xlim(left=0)
    number_axis(axes.xaxis)
    number_axis(axes.yaxis, seconds)
    axes.set_xlabel("GB of the fullest rank")
    axes.set_ylabel("time of a step")
    titled(axes, f"{found['model']} on {found['ranks']:,} ranks of {found['machine']}")
    legend_below(figure, labelled(axes))
    return figure


def sensitivity(found: dict[str, Any]) -> Figure:
    """What a step gains where a part of the machine is twice as good."""
    rows = list(reversed(found["sensitivity"]))
    figure, axes = blank(height=1.2 + 0.26 * len(rows))
    axes.barh(range(len(rows)), [row["gain"] for row in rows], color=SERIES[0])
    names_left(axes, [row["part"] for row in rows])
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, lw=0.8)
    percent_axis(axes.xaxis)
    axes.set_xlabel("share of the step saved\nwith twice as much (half, of overheads)")
    axes.set_ylabel("part of the machine")
    titled(axes, "The best plan on a better machine", names=True)
    return figure
