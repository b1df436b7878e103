"""Plots of campaigns: where the time went, what the job did when, and what the machine drew meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..content.colours import ENTRIES
from .style import INK, SMALL, blank, legend_below, names_left, number_axis, rate_unit, titled

PHASES = {"forward": "#33658a", "backward": "#4f9d69", "update": "#8e6c8a", "checkpoint": "#f6ae2d"}
"""Colours of what a machine does within some steps."""

Spans = Sequence[tuple[float, float, str]]

HOUR, DAY = 3600.0, 86400.0


def waterfall(ledger: Mapping[str, float], title: str) -> Figure:
    """From the work alone to the wall clock: what each entry of the ledger adds."""
    used = {name: seconds for name, seconds in ledger.items() if seconds > 0}
    size, unit = _time_unit(sum(used.values()))
    figure, axes = blank(height=1.2 + 0.3 * len(used))
    start = 0.0
    for place, (name, seconds) in enumerate(used.items()):
        axes.barh(place, seconds / size, left=start / size, color=ENTRIES[name], height=0.7)
        start += seconds
        axes.annotate(
            f"{seconds / sum(used.values()):.1%}", (start / size, place), (4, 0), textcoords="offset points"
        ).set(fontsize=SMALL, color=INK, va="center")
    names_left(axes, [name.replace("_", " ") for name in used])
    axes.set_ylim(len(used) - 0.5, -0.5)
    axes.set_xlim(0, 1.14 * start / size)
    number_axis(axes.xaxis)
    axes.set_xlabel(f"wall clock, {unit}")
    titled(axes, title, names=True)
    return figure


def gantt(spans: Spans, title: str) -> Figure:
    """What the job did when, a row for each entry of the ledger."""
    size, unit = _time_unit(spans[-1][1] if spans else 1.0)
    rows = [name for name in ENTRIES if any(each[2] == name for each in spans)]
    figure, axes = blank(height=1.2 + 0.3 * len(rows))
    for place, name in enumerate(rows):
        bars = [(start / size, (end - start) / size) for start, end, entry in spans if entry == name]
        axes.broken_barh(bars, (place - 0.35, 0.7), color=ENTRIES[name])
    names_left(axes, [name.replace("_", " ") for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    number_axis(axes.xaxis)
    axes.set_xlabel(f"wall clock, {unit}")
    titled(axes, title, names=True)
    return figure


def power(spans: Spans, watts: Mapping[str, float], title: str) -> Figure:
    """What the machine draws over time."""
    size, unit = _time_unit(spans[-1][1] if spans else 1.0)
    factor, name = rate_unit(max(watts.values()), "W")
    figure, axes = blank(height=2.6)
    for entry, colour in ENTRIES.items():
        bars = [(start / size, (end - start) / size) for start, end, which in spans if which == entry]
        axes.broken_barh(bars, (0.0, watts[entry] / factor), color=colour, lw=0)
    axes.set_ylim(0, 1.1 * max(watts.values()) / factor)
    axes.set_xlim(0, (spans[-1][1] if spans else 1.0) / size)
    number_axis(axes.xaxis)
    number_axis(axes.yaxis)
    axes.set_xlabel(f"wall clock, {unit}")
    axes.set_ylabel(f"{name} of the site")
    titled(axes, title)
    there = [entry for entry in ENTRIES if any(each[2] == entry for each in spans)]
    legend_below(figure, [Patch(facecolor=ENTRIES[entry], label=entry.replace("_", " ")) for entry in there])
    return figure


def swings(spans: Sequence[tuple[float, float, str, float]], title: str) -> Figure:
    """What the machine draws during some steps and a checkpoint."""
    factor, name = rate_unit(max(each[3] for each in spans), "W")
    figure, axes = blank(height=2.6)
    for what, colour in PHASES.items():
        bars = [(start, end - start, watts) for start, end, which, watts in spans if which == what]
        for start, width, watts in bars:
            axes.broken_barh([(start, width)], (0.0, watts / factor), color=colour, lw=0)
    axes.set_ylim(0, 1.1 * max(each[3] for each in spans) / factor)
    axes.set_xlim(0, spans[-1][1])
    number_axis(axes.xaxis)
    number_axis(axes.yaxis)
    axes.set_xlabel("seconds")
    axes.set_ylabel(f"{name} of the site")
    titled(axes, title)
    legend_below(figure, [Patch(facecolor=colour, label=what) for what, colour in PHASES.items()])
    return figure


def _time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which a time has one to three digits before its point."""
    if seconds >= 3 * DAY:
        return DAY, "days"
    return (HOUR, "hours") if seconds >= 3 * HOUR else (60.0, "minutes")
