"""Figures of reproductions: published beside simulated, and series over a size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from .plots import COLOURS, INK, MARKERS, PUBLISHED, SERIES, blank, legend_beside


def beside(rows: Mapping[str, tuple[float, float]], what: str, title: str) -> Figure:
    """Published and simulated values of each row as pairs of bars, with the simulated one's error."""
    figure, axes = blank(width=max(7.0, 1.8 + 0.75 * len(rows)))
    for place, (target, simulated) in enumerate(rows.values()):
        label = not place
        axes.bar(place - 0.2, target, 0.38, color=PUBLISHED, label="published" if label else None)
        axes.bar(place + 0.2, simulated, 0.38, color=COLOURS["compute"], label="simulated" if label else None)
        error = f"{simulated / target - 1:+.0%}"
        axes.text(place, max(target, simulated), error, ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_xticks(range(len(rows)), list(rows))
    _slanted(axes, len(rows) > 4)
    axes.set_ylabel(what)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylim(0, 1.12 * max(max(pair) for pair in rows.values()))
    axes.grid(axis="x", visible=False)
    legend_beside(axes)
    return figure


def series(
    curves: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, title: str, logarithmic: bool = True
) -> Figure:
    """Curves of ``(x, y)`` points by name; with ``logarithmic`` both axes are, to base 2."""
    figure, axes = blank(width=7.6)
    for place, (name, points) in enumerate(curves.items()):
        style: dict[str, Any] = {
            "marker": MARKERS[place % len(MARKERS)],
            "color": SERIES[place % len(SERIES)],
            "label": name,
        }
        line = ("-", "--", ":")[place % 3]  # curves that coincide are seen through each other
        axes.plot([at for at, _ in points], [value for _, value in points], line, lw=1.6, ms=5, **style)
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(sorted({at for points in curves.values() for at, _ in points}))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left", fontsize=11)
    legend_beside(axes)
    return figure


def bars(sizes: Mapping[str, float], what: str, title: str, limit: tuple[float, str] | None = None) -> Figure:
    """A bar for each name; ``limit`` is a value and what it is, drawn across."""
    figure, axes = blank(width=max(6.5, 2.0 + 1.4 * len(sizes)))
    axes.bar(list(sizes), list(sizes.values()), 0.6, color=COLOURS["compute"])
    for place, size in enumerate(sizes.values()):
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.annotate(
            f"{size:,.3g}",
            (place, size),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK,
            bbox=paper,
        )
    if limit:
        axes.axhline(limit[0], color=PUBLISHED, lw=1.6, label=limit[1])
        legend_beside(axes)
    axes.set_ylim(0, 1.15 * max(*sizes.values(), limit[0] if limit else 0))
    axes.set_ylabel(what)
    axes.set_title(title, loc="left", fontsize=11)
    _slanted(axes, len(sizes) > 4)
    return figure


def _slanted(axes: Axes, wanted: bool) -> None:
    """Names below the bars at a slant, their ends at the bars."""
    if wanted:
        for label in axes.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")
