"""Plots of a study's points: one column over another, a line for each series, a part of the plot for each facet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..content.colours import SERIES
from ..content.studies import cell, heading
from .style import (
    INK,
    MARKERS,
    TEXT,
    TITLE,
    WIDTH,
    framed,
    legend_below,
    log_axis,
    names_below,
    number_axis,
    plain,
    wrapped,
)

if TYPE_CHECKING:
    from ...sim.studies.study.study_file import PlotRequest

Rows = Sequence[Mapping[str, Any]]

HEIGHT = 2.9
"""Of a facet, in inches."""

FEW_BARS = 8
"""Bars up to which each says what it stands for."""

BELOW_BARS = 2.0
"""How far a logarithmic axis goes below the smallest bar, and above the largest, which has its value on top."""


def study_plot(rows: Rows, asked: PlotRequest) -> Figure:
    """The plot that a study asks for, of the points that have both of its columns."""
    there = [row for row in rows if row.get(asked.x) is not None and isinstance(row.get(asked.y), int | float)]
    facets = _values(there, asked.facets)
    series = _values(there, asked.series)
    figure = Figure(figsize=(WIDTH, HEIGHT * len(facets) + 0.5), layout="constrained")
    plots = figure.subplots(len(facets), 1, squeeze=False, sharey=True)[:, 0]
    names = [str(value) for value in _values(there, asked.x)] if _is_text(there, asked.x) else []
    for axes, facet in zip(plots, facets, strict=True):
        framed(axes)
        here = [row for row in there if not asked.facets or row[asked.facets] == facet]
        for number, each in enumerate(series):
            mine = [row for row in here if not asked.series or row[asked.series] == each]
            _draw(axes, asked, mine, names, number, len(series))
        _finish(axes, asked, there, names)
        if asked.facets:
            axes.set_title(f"{heading(asked.facets)} {facet}", loc="left", fontsize=TEXT)
    title = asked.title or f"{heading(asked.y)} over {heading(asked.x)}"
    figure.suptitle(wrapped(title, 52), x=0.02, ha="left", fontsize=TITLE)
    handles: list[Any] = []
    if asked.series:
        handles = [_handle(asked, at, str(each)) for at, each in enumerate(series)]
    if asked.ideal:
        handles.append(Line2D([], [], color=INK, ls="--", lw=1, label="ideal"))
    legend_below(figure, handles)
    return figure


def _handle(asked: PlotRequest, at: int, label: str) -> Any:
    """A series in the legend."""
    colour = SERIES[at % len(SERIES)]
    if asked.kind == "bars":
        return Patch(facecolor=colour, label=label)
    line = "none" if asked.kind == "points" else "-"
    return Line2D([], [], color=colour, marker=MARKERS[at % len(MARKERS)], ls=line, label=label)


def _draw(axes: Axes, asked: PlotRequest, rows: Rows, names: list[str], number: int, many: int) -> None:
    """One series."""
    colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    if asked.kind == "bars" or names:
        places = [names.index(str(row[asked.x])) if names else row[asked.x] for row in rows]
        if asked.kind == "bars":
            width = 0.8 / many
            at = [place + width * (number - (many - 1) / 2) for place in places]
            axes.bar(at, [row[asked.y] for row in rows], width=width, color=colour)
            if many * len(names or rows) <= FEW_BARS:
                for place, row in zip(at, rows, strict=True):
                    told = cell(asked.y, row[asked.y])
                    axes.annotate(
                        told, (place, row[asked.y]), (0, 2), textcoords="offset points", ha="center", size=TEXT - 1
                    )
            return
        axes.plot(places, [row[asked.y] for row in rows], _shape(asked, marker), color=colour, ms=4)
        return
    ordered = sorted(rows, key=lambda row: row[asked.x])
    x, y = [row[asked.x] for row in ordered], [row[asked.y] for row in ordered]
    if asked.ideal and x:
        ideal = [y[0] * (each / x[0] if asked.ideal == "proportional" else 1.0) for each in x]
        axes.plot(x, ideal, "--", color=colour if many > 1 else INK, lw=1)
    axes.plot(x, y, _shape(asked, marker), color=colour, ms=4)


def _shape(asked: PlotRequest, marker: str) -> str:
    return marker if asked.kind == "points" else f"{marker}-"


def _finish(axes: Axes, asked: PlotRequest, rows: Rows, names: list[str]) -> None:
    """Axes with their scales and labels, the same for all facets; ``rows`` are those of all."""
    if names:
        names_below(axes, names)
    for axis, letter, name in ((axes.xaxis, "x", asked.x), (axes.yaxis, "y", asked.y)):
        if names and letter == "x":
            continue
        values = [row[name] for row in rows if row[name] > 0]
        if letter in asked.log and len(set(values)) > 1:
            below = BELOW_BARS if asked.kind == "bars" else 1.2
            log_axis(axis, min(values) / below, max(values) * below, _short)
        else:
            number_axis(axis, _short)
    if "y" not in asked.log and all(row[asked.y] >= 0 for row in rows):
        axes.set_ylim(0, 1.08 * max((row[asked.y] for row in rows), default=0.0) or 1.0)
    axes.set_xlabel(heading(asked.x))
    axes.set_ylabel(heading(asked.y))


def _short(value: float) -> str:
    """A number with a prefix where it is large."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{plain(value / size)} {letter}"
    return plain(value)


def _values(rows: Rows, column: str) -> list[Any]:
    """The distinct values of a column in their order; one that stands for all rows where no column is named."""
    if not column:
        return [None]
    return list(dict.fromkeys(row.get(column) for row in rows)) or [None]


def _is_text(rows: Rows, column: str) -> bool:
    return any(isinstance(row[column], str | bool) for row in rows)
