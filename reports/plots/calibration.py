"""Plots of calibrations: what was measured as points, what was made of it as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...hardware.units import si
from ..content.colours import SERIES
from ..studies.calibration_checks import CollectiveCheck
from .collectives import whose_bytes
from .style import (
    GRID,
    INK,
    MARKERS,
    SMALL,
    WIDTH,
    blank,
    bytes_axis,
    framed,
    labelled,
    legend_below,
    log_axis,
    number_axis,
    percent_axis,
    seconds,
    titled,
)

if TYPE_CHECKING:
    from ...mpi_runtime.calibration.findings import FittedNumber

SIDES = {"fitted": "own fit", "calibrated": "calibrated machine", "nominal": "nominal machine (--like)"}

MOST_ERROR = 3.0
"""Relative errors above this are drawn at it."""


def ping_pong(pairs: Sequence[FittedNumber]) -> Figure:
    """One way of messages by level, measured and fitted, both axes logarithmic."""
    figure, axes = blank()
    for place, each in enumerate(pairs):
        _curve(axes, each, place, str(each.name))
    _logarithmic(axes, [each.point.size for pair in pairs for each in pair.series])
    axes.set_xlabel("bytes of a message")
    axes.set_ylabel("time one way")
    titled(axes, "Messages between two ranks")
    legend_below(figure, labelled(axes))
    return figure


def collectives(name: str, fits: Sequence[FittedNumber]) -> Figure:
    """Algorithms of an operation on one group: measured, fitted, held out."""
    figure, axes = blank()
    for place, each in enumerate(fits):
        _curve(axes, each, place, str(each.detail["algorithm"]))
    _logarithmic(axes, [each.point.size for fit in fits for each in fit.series])
    axes.set_xlabel(f"bytes {whose_bytes(str(fits[0].detail['operation']))}")
    axes.set_ylabel("measured time")
    titled(axes, name)
    legend_below(figure, [*labelled(axes), _hollow("held out of the fit")])
    return figure


def errors(checks: Sequence[CollectiveCheck], sides: Sequence[str], title: str) -> Figure:
    """Relative errors over size, operation by operation in colour; one plot for each of the sides."""
    figure = Figure(figsize=(WIDTH, 0.6 + 2.6 * len(sides)), layout="constrained")
    operations = list(dict.fromkeys(check.name.split()[0] for check in checks))
    for number, side in enumerate(sides):
        axes = figure.add_subplot(len(sides), 1, number + 1)
        framed(axes)
        axes.axhspan(-0.1, 0.1, color="#eeeeee", zorder=0)
        axes.axhline(0, color=INK, lw=0.8)
        for place, operation in enumerate(operations):
            _errors(axes, [check for check in checks if check.name.split()[0] == operation], side, place)
        bytes_axis(axes.xaxis, sorted({check.payload for check in checks if check.payload}) or [1, 4])
        percent_axis(axes.yaxis, signed=True)
        axes.set_ylabel("relative error")
        titled(axes, f"{title}: {SIDES[side]}" if len(sides) > 1 else title)
    axes.set_xlabel("bytes of a rank's payload")
    handles = [
        Line2D([], [], ls="none", marker=MARKERS[place % len(MARKERS)], color=SERIES[place % len(SERIES)], label=name)
        for place, name in enumerate(operations)
    ]
    legend_below(figure, [*handles, _hollow("held out of the fit")])
    return figure


def products(rows: Sequence[dict[str, Any]]) -> Figure:
    """Rates of products by shape: measured (points) and by the model (bars); one of a single element is left out."""
    rows = [row for row in rows if row["m"] * row["n"] * row["k"] > 1]
    figure, axes = blank(height=1.3 + 0.19 * len(rows))
    names = [f"{row['m']} x {row['n']} x {row['k']} {row['precision']}" for row in rows]
    rates = {
        key: np.array([2.0 * row["m"] * row["n"] * row["k"] / row[key] for row in rows])
        for key in ("seconds", "modelled_seconds")
    }
    places = np.arange(len(rows))[::-1]
    axes.hlines(places, rates["seconds"], rates["modelled_seconds"], color="#bbbbbb", lw=1.2)
    axes.plot(rates["seconds"], places, "o", ms=5, color=SERIES[0], label="measured")
    axes.plot(rates["modelled_seconds"], places, "|", ms=10, mew=2, color=SERIES[1], label="model of the machine")
    axes.set_yticks(places, names, fontsize=SMALL)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlim(left=0)
    number_axis(axes.xaxis, lambda value: si(value, "FLOP/s", 3) if value else "0")
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, lw=0.8)
    axes.set_xlabel("rate of a rank, all ranks at once")
    axes.set_ylabel("product m x n x k")
    titled(axes, "Rates of products", names=True)
    legend_below(figure, labelled(axes))
    return figure


def _curve(axes: Axes, fitted: FittedNumber, place: int, label: str) -> None:
    """Points of a fit (held out: hollow) and its lines; a break is a gap in these."""
    colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
    for held_out in (False, True):
        chosen = [each for each in fitted.series if each.point.held_out is held_out]
        face = "white" if held_out else colour
        axes.plot(
            [each.point.size for each in chosen],
            [each.median for each in chosen],
            marker,
            ms=5.5,
            mfc=face,
            mec=colour,
            ls="none",
            zorder=3,
        )
    least, most = fitted.series[0].point.size, fitted.series[-1].point.size
    ends = [*(piece.least for piece in fitted.curve.pieces), float("inf")]
    for number, piece in enumerate(fitted.curve.pieces):
        sizes = np.geomspace(max(least, ends[number], 1), max(min(most, ends[number + 1]), 1), 60)
        style: dict[str, Any] = {"color": colour, "lw": 1.4, "marker": marker, "ms": 5.5, "markevery": []}
        axes.plot(sizes, [piece.at(size) for size in sizes], **style, label=label if not number else None)


def _errors(axes: Axes, checks: Sequence[CollectiveCheck], side: str, place: int) -> None:
    """Errors of one operation."""
    colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
    for held_out in (False, True):
        chosen = [(each.payload, each.error(side)) for each in checks if each.held_out is held_out and each.payload]
        told = [(size, min(error, MOST_ERROR)) for size, error in chosen if error is not None]
        face = "white" if held_out else colour
        axes.plot(
            [size for size, _ in told], [error for _, error in told], marker, ms=5, mfc=face, mec=colour, ls="none"
        )


def _hollow(label: str) -> Line2D:
    return Line2D([], [], ls="none", marker="o", mfc="white", mec=INK, label=label)


def _logarithmic(axes: Axes, sizes: Sequence[int]) -> None:
    """Both axes logarithmic, with sizes in powers of four and times in readable units."""
    bytes_axis(axes.xaxis, sorted({max(size, 1) for size in sizes}))
    drawn = [float(value) for line in axes.get_lines() for value in np.asarray(line.get_ydata(), dtype=float)]
    known = [value for value in drawn if value > 0]
    log_axis(axes.yaxis, min(known) / 1.3, max(known) * 1.3, seconds)
