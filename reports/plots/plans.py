"""Plots of a plan search: the front of time against memory, and what parts of the machine would give."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from .plots import COLOURS, INK, SERIES, blank


def front(found: dict[str, Any]) -> Figure:
    """Step time against the memory of a rank: the front as a line, other plans as points, and what a rank has."""
    figure, axes = blank()
    others = [*found["plans"], *found["by_mesh"]]
    size = [plan["memory_per_rank_bytes"]["total"] / 1e9 for plan in others]
    axes.plot(size, [plan["step_seconds"] for plan in others], ".", color=COLOURS["imbalance"], label="other plans")
    best = [(plan["memory_per_rank_bytes"]["total"] / 1e9, plan["step_seconds"]) for plan in found["front"]]
    axes.plot(*zip(*best, strict=True), "o-", color=COLOURS["compute"], label="front") if best else None
    axes.axvline(found["memory_bytes"] / 1e9, color=INK, ls="--", lw=1, label="memory of a rank")
    axes.set_xlabel("GB a rank")
    axes.set_ylabel("seconds a step")
    axes.legend(frameon=False)
    axes.set_title(f"{found['model']} on {found['ranks']:,} ranks of {found['machine']}", loc="left", fontsize=10)
    return figure


def sensitivity(found: dict[str, Any]) -> Figure:
    """What a step gains where a part of the machine is twice as good."""
    figure, axes = blank()
    rows = list(reversed(found["sensitivity"]))
    axes.barh([row["part"] for row in rows], [100 * row["gain"] for row in rows], color=SERIES[0])
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    axes.set_xlabel("% of the step saved with twice as much (half, of overheads)")
    axes.set_title("The best plan on a better machine", loc="left", fontsize=10)
    return figure
