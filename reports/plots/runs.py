"""Plots of runs beside each other: where a step's time goes, the load of experts, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...hardware.units import si
from ...workloads.schedule.operation import CATEGORIES, PHASES
from ..content.colours import COLOURS, SERIES
from .style import (
    GRID,
    INK,
    PAPER,
    PUBLISHED,
    SMALL,
    blank,
    labelled,
    legend_below,
    log_axis,
    names_below,
    names_left,
    number_axis,
    percent_axis,
    rate_unit,
    swatches,
    titled,
)

MEMORY_COLOURS = {
    "parameters": "#33658a",
    "gradients": "#4f9d69",
    "optimizer": "#8e6c8a",
    "activations": "#f6ae2d",
    "other": "#86623b",
}
HATCHES = {"forward": "", "backward": "//", "update": ".."}

LEAST_SHARE = 0.002
"""Shares of a step below this are not drawn."""


def breakdown(summaries: Mapping[str, Mapping[str, Any]], what: str = "") -> Figure:
    """Exposed seconds of one step for each run, stacked by phase (hatching) and category (colour), as shares of the step.

    ``what`` is the label of the axis of names: what tells the runs apart.
    """
    figure, axes = blank(height=3.6)
    names = list(summaries)
    places = range(len(names))
    bottoms = [0.0] * len(names)
    shown: dict[str, None] = {}
    for phase in PHASES:
        for category in CATEGORIES:
            shares = [run["breakdown_by_phase"][phase][category] / run["step_seconds"] for run in summaries.values()]
            if max(shares) < LEAST_SHARE:
                continue
            shown[category] = None
            style: dict[str, Any] = {
                "color": COLOURS[category],
                "hatch": HATCHES[phase],
                "edgecolor": "white",
                "lw": 0.4,
                "width": 0.7,
            }
            axes.bar(places, shares, bottom=bottoms, **style)
            bottoms = [bottom + share for bottom, share in zip(bottoms, shares, strict=True)]
    slanted = len(names) > 6
    for place, run in enumerate(summaries.values()):
        text = si(run["step_seconds"], "s", 3)
        axes.text(place, 1.015, text, ha="left" if slanted else "center", va="bottom", fontsize=SMALL, color=INK,
                  rotation=30 if slanted else 0, rotation_mode="anchor")  # fmt: skip
    names_below(axes, names)
    axes.set_xlim(-max(0.5, 1.6 - len(names) / 2), len(names) - 1 + max(0.5, 1.6 - len(names) / 2))
    axes.set_ylim(0, 1.08)
    percent_axis(axes.yaxis)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_ylabel("share of the step (mean over ranks)")
    axes.set_xlabel(what)
    titled(axes, "Where a step's time goes", pad=26 if slanted else 12)
    phases = [
        Patch(facecolor="white", edgecolor=INK, hatch=HATCHES[phase] * 2, lw=0.4, label=phase) for phase in PHASES
    ]
    legend_below(figure, [*swatches(shown), *phases])
    return figure


def steps_by_category(
    summaries: Mapping[str, Mapping[str, Any]], title: str, what: str, published: float | None = None, note: str = ""
) -> Figure:
    """Seconds of each step by category; ``published`` is the measured ratio of the second to the first."""
    figure, axes = blank()
    names = list(summaries)
    bottoms = [0.0] * len(names)
    shown = []
    for category in CATEGORIES:
        seconds = [summary["breakdown"][category] for summary in summaries.values()]
        if max(seconds) > LEAST_SHARE * max(summary["step_seconds"] for summary in summaries.values()):
            shown.append(category)
            axes.bar(range(len(names)), seconds, bottom=bottoms, color=COLOURS[category], width=0.55)
            bottoms = [bottom + part for bottom, part in zip(bottoms, seconds, strict=True)]
    for place, total in enumerate(bottoms):
        label = "\n".join((si(total, "s", 3), f"{total / bottoms[0]:.2f}x"))
        axes.annotate(
            label, (place, total), textcoords="offset points", xytext=(0, 4), ha="center", fontsize=SMALL, color=INK
        )
    handles = swatches(shown)
    if published:
        label = f"published ({published:g}x{note})"
        handles += axes.plot([1.36], [published * bottoms[0]], "*", ms=13, color=PUBLISHED, label=label, ls="none")
    names_below(axes, names)
    axes.set_ylim(0, max(bottoms) * 1.2)
    number_axis(axes.yaxis)
    axes.set_ylabel("seconds a step")
    axes.set_xlabel(what)
    titled(axes, title)
    legend_below(figure, handles)
    return figure


def expert_load(loads: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Load of the ranks of an expert-parallel group in falling order: wanted (solid) and carried after balancing (dashed).

    What is wanted is drawn once where it is the same for all.
    """
    figure, axes = blank()
    wanted = {name: list(load["wanted"]) for name, load in loads.items()}
    same = all(values == next(iter(wanted.values())) for values in wanted.values())
    for colour, (name, load) in zip(SERIES, loads.items(), strict=False):
        if not same or name == next(iter(loads)):
            _falling(axes, load["wanted"], "-", INK if same else colour, "wanted" if same else f"{name}: wanted")
        _falling(axes, load["carried"], "--", colour, f"{name}: carried")
    drawn = [value for load in loads.values() for side in load.values() for value in side if value > 0] or [1.0]
    low, high = 0.9 * min(drawn), 1.1 * max(drawn)
    log_axis(axes.yaxis, low, high, lambda value: f"{value:,.4g}x")
    axes.set_xlim(0, 100)
    number_axis(axes.xaxis, lambda value: f"{value:g} %")
    axes.set_xlabel("ranks of one expert-parallel group, most loaded first")
    axes.set_ylabel("tokens over the mean")
    titled(axes, "Expert load before and after balancing (first layer)")
    legend_below(figure, labelled(axes))
    return figure


def memory(tables: Mapping[str, Mapping[str, float]], what: str = "") -> Figure:
    """Memory of the fullest rank for each plan, against its capacity. ``what`` is the label of the axis of names."""
    figure, axes = blank()
    names = list(tables)
    bottoms = [0.0] * len(names)
    unit, prefix = rate_unit(max(max(each["total"], each["capacity"]) for each in tables.values()), "B")
    for part, colour in MEMORY_COLOURS.items():
        sizes = [entry[part] / unit for entry in tables.values()]
        axes.bar(range(len(names)), sizes, bottom=bottoms, color=colour, label=part, width=0.6)
        bottoms = [bottom + size for bottom, size in zip(bottoms, sizes, strict=True)]
    capacities = [entry["capacity"] / unit for entry in tables.values()]
    for place, capacity in enumerate(capacities):
        ends = [place - 0.42, place + 0.42]
        axes.plot(ends, [capacity] * 2, color=PUBLISHED, lw=1.6, label=None if place else "capacity")
        text = axes.text(place, bottoms[place], f"{bottoms[place]:.3g}", ha="center", va="bottom", fontsize=SMALL)
        text.set(color=INK, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.7})
    names_below(axes, names)
    if len(names) == 1:
        axes.set_xlim(-1.2, 1.2)
    number_axis(axes.yaxis)
    axes.set_ylabel(f"{prefix} of the fullest rank")
    axes.set_xlabel(what)
    axes.set_ylim(0, 1.15 * max(*bottoms, *capacities))
    titled(axes, "Memory")
    legend_below(figure, labelled(axes))
    return figure


def links(totals: Mapping[str, Any]) -> Figure:
    """Use of each kind of link over a step: the mean of all links as a bar, the most used one as a mark."""
    rows = list(reversed(totals["links"]))
    figure, axes = blank(height=1.2 + 0.34 * len(rows))
    places = range(len(rows))
    axes.barh(places, [row["mean_utilisation"] for row in rows], color=SERIES[0], height=0.6, label="mean of all")
    most = [row["max_utilisation"] for row in rows]
    axes.plot(most, places, "|", color=PUBLISHED, ms=14, mew=2, label="most used")
    names_left(
        axes, [f"{row['kind']}, {row['links']:,} of {si(row['capacity_bytes_per_second'], 'B/s', 3)}" for row in rows]
    )
    axes.set_xlim(0, max(1e-3, 1.08 * max(most, default=0.0)))
    axes.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    percent_axis(axes.xaxis)
    axes.grid(axis="x", color=GRID, lw=0.8)
    axes.set_xlabel("busy share of the step")
    titled(axes, "Use of links", names=True)
    legend_below(figure, labelled(axes))
    return figure


def _falling(axes: Axes, values: Sequence[float], style: str, colour: str, label: str) -> None:
    """A curve over the ranks' percentiles."""
    places = [100 * (place + 0.5) / len(values) for place in range(len(values))]
    axes.plot(places, values, style, color=colour, lw=1.6, label=label)
