"""Plots of comparisons: timelines, predicted against measured, and errors beside the repeats' own variation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log10

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..content.colours import COLOURS, SERIES
from ..content.words import percent
from ..studies.comparison.compare import Pair
from ..studies.comparison.rows import ComparisonRow
from .style import (
    GRID,
    INK,
    SMALL,
    blank,
    labelled,
    legend_below,
    log_axis,
    percent_axis,
    seconds,
    titled,
)
from .timelines import timelines as timelines_of

BAND = 0.10
"""Errors up to this lie in the shaded band."""

MOST_ERROR = 1.0
"""Bars of errors end here; the number beside each is not cut."""

NAMED = 6
"""Operations that are named in a plot: those that are most seconds off."""


def timelines(pair: Pair) -> Figure:
    """A step of the same rank, predicted above measured."""
    return timelines_of(dict(zip(("predicted", "measured"), pair.timelines, strict=True)), height=4.4)


def operations(pair: Pair) -> Figure:
    """Predicted against measured seconds of each operation, both logarithmic, with those named that are most seconds off."""
    rows = [(row.name, row.what.category, row.seconds) for row in pair.operations]
    drawn = [each for each in rows if each[2].predicted > 0 and each[2].measured > 0]
    figure, axes = blank(height=4.6)
    for category in dict.fromkeys(category for _, category, _ in drawn):
        here = [row for _, each, row in drawn if each == category]
        axes.plot(
            [row.measured for row in here],
            [row.predicted for row in here],
            "o",
            ms=5,
            alpha=0.8,
            color=COLOURS[category],
        )
    marks = _diagonal(axes, [row for *_, row in drawn])
    off: dict[str, ComparisonRow] = {}
    for name, _, row in sorted(drawn, key=lambda each: -abs(each[2].predicted - each[2].measured)):
        if row.predicted != row.measured and len(off) < NAMED:
            off.setdefault(name, row)
    marks += _numbered(axes, off)
    titled(axes, f"Seconds a step of each operation, summed over layers\n{pair.name}")
    legend_below(figure, [*_dots(category for _, category, _ in drawn), *marks])
    return figure


def _numbered(axes: Axes, rows: Mapping[str, ComparisonRow]) -> list[Line2D]:
    """Numbers at points, those of one place side by side; their names as legend entries."""
    low, high = axes.get_xlim()
    cell = log10(high / low) / 30
    places: dict[tuple[int, int], list[str]] = {}
    for number, row in enumerate(rows.values(), 1):
        near = (round(log10(row.measured) / cell), round(log10(row.predicted) / cell))
        places.setdefault(near, []).append(f"{number}")
    for numbers in places.values():
        row = list(rows.values())[int(numbers[0]) - 1]
        at = (row.measured, row.predicted)
        axes.annotate(",".join(numbers), at, textcoords="offset points", xytext=(6, -9), fontsize=SMALL, color=INK)
    return [
        Line2D([], [], ls="", marker="", color=INK, label=f"{number}: {label}") for number, label in enumerate(rows, 1)
    ]


def steps(pairs: Sequence[Pair]) -> Figure:
    """Predicted against measured step of each pair, both logarithmic, zero-fit and fitted in different colours."""
    figure, axes = blank(height=4.6)
    for fitted, colour, label in ((False, SERIES[0], "zero-fit"), (True, SERIES[1], "fitted")):
        here = [pair for pair in pairs if bool(pair.fitted) == fitted]
        if here:
            places = [[getattr(pair.step, side) for pair in here] for side in ("measured", "predicted")]
            axes.plot(*places, "o", ms=6, color=colour, label=label)
    handles = labelled(axes)
    marks = _diagonal(axes, [pair.step for pair in pairs])
    marks += _numbered(axes, {pair.name: pair.step for pair in pairs})
    titled(axes, "Step of each configuration")
    legend_below(figure, [*handles, *marks])
    return figure


def errors(pair: Pair) -> Figure:
    """Relative errors of the step, its phases and the kinds of operation as bars.

    Whiskers about zero are the measured steps' own variation: a bar that ends within its whisker is no more off than they are.
    """
    groups = [[pair.step], pair.phases, pair.categories, pair.groups["kinds"]]
    rows = [(number, row) for number, group in enumerate(groups) for row in group if row.relative_error is not None]
    figure, axes = blank(height=1.4 + 0.25 * len(rows))
    axes.axvspan(-BAND, BAND, color="#f0f0f0", zorder=0)
    axes.axvline(0, color=INK, lw=0.8)
    for place, (number, row) in enumerate(rows):
        _error_bar(axes, place + 0.5 * number, row, SERIES[number])
    axes.set_yticks(
        [place + 0.5 * number for place, (number, _) in enumerate(rows)],
        [row.name.replace("_", "-") for _, row in rows],
    )
    axes.set_ylim(len(rows) + 0.5 * rows[-1][0], -1)
    spread = max((row.variation or 0.0 for _, row in rows), default=0.0)
    reaches = [_reach(row) for _, row in rows]
    low, high = max(-MOST_ERROR, min(-BAND, -spread, *reaches)), min(MOST_ERROR, max(BAND, spread, *reaches))
    axes.set_xlim(low - 0.16 * (high - low), high + 0.16 * (high - low))  # room for the numbers
    axes.grid(axis="y", visible=False)
    percent_axis(axes.xaxis, signed=True)
    axes.set_xlabel("relative error of the prediction\nwhiskers: standard deviation of the measured steps")
    axes.set_ylabel("seconds of")
    axes.tick_params(axis="y", labelsize=SMALL)
    titled(axes, f"Errors: {pair.name}", names=True)
    names = ("step", "phases", "categories (exposed)", "kinds of operation")
    patches = [Patch(facecolor=colour, label=name) for name, colour in zip(names, SERIES, strict=False)]
    legend_below(figure, [*patches, Patch(facecolor="#f0f0f0", label=f"±{BAND:.0%}")])
    return figure


def _reach(row: ComparisonRow) -> float:
    """Where the bar ends, or the whisker where that is longer; both are cut."""
    error, spread = row.relative_error or 0.0, row.variation or 0.0
    return max(error, spread) if error >= 0 else min(error, -spread)


def _error_bar(axes: Axes, place: float, row: ComparisonRow, colour: str) -> None:
    """A bar, cut where it is too long, with its error as text; a whisker about zero where steps were repeated."""
    error = row.relative_error or 0.0
    right = error >= 0
    axes.barh(place, min(MOST_ERROR, error), height=0.7, color=colour)
    if row.variation is not None:
        axes.errorbar(0, place, xerr=row.variation, color=INK, lw=1.0, capsize=2.5)
    axes.annotate(
        percent(error) + ("" if error <= MOST_ERROR else " (cut)"),
        (max(-MOST_ERROR, min(MOST_ERROR, _reach(row))), place),
        textcoords="offset points",
        xytext=(5 if right else -5, 0),
        ha="left" if right else "right",
        va="center",
        fontsize=SMALL,
    )


def _diagonal(axes: Axes, rows: Sequence[ComparisonRow]) -> list[Line2D]:
    """Logarithmic axes of seconds on both sides with the line of no error and those of the band, as legend entries."""
    values = [value for row in rows for value in (row.predicted, row.measured)] or [1.0]
    ends = [min(values) / 1.5, max(values) * 1.5]
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, ends[0], ends[1], seconds)
    axes.set_aspect("equal")
    marks = axes.plot(ends, ends, "-", color=INK, lw=1, label="no error", zorder=1)
    marks += axes.plot(
        ends, [(1 + BAND) * end for end in ends], "--", color=INK, lw=0.7, label=f"±{BAND:.0%}", zorder=1
    )
    axes.plot(ends, [(1 - BAND) * end for end in ends], "--", color=INK, lw=0.7, zorder=1)
    axes.grid(color=GRID, lw=0.8)
    axes.set_xlabel("measured time")
    axes.set_ylabel("predicted time")
    return marks


def _dots(categories: Iterable[str]) -> list[Line2D]:
    """Legend entries of points by category."""
    return [
        Line2D([], [], marker="o", ls="", color=COLOURS[category], label=category.replace("_", "-"))
        for category in dict.fromkeys(categories)
    ]
