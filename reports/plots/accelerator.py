"""The plot of an accelerator's calibration: predicted against measured seconds of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ..content.colours import SERIES
from .style import INK, MARKERS, blank, labelled, legend_below, log_axis, seconds, titled


def predicted_against_measured(points: Mapping[str, Sequence[tuple[float, float, bool]]]) -> Figure:
    """Predicted over measured seconds, (measured, predicted, held out) by kind of operator: the diagonal, and 10 % about it."""
    figure, axes = blank(height=4.6)
    for place, (kind, told) in enumerate(points.items()):
        for held_out in (False, True):
            mine = [(measured, predicted) for measured, predicted, out in told if out is held_out]
            if mine:
                colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
                face, label = ("none", f"{kind}, held out") if held_out else (colour, kind)
                axes.plot(*zip(*mine, strict=True), marker, color=colour, mfc=face, ms=4, label=label)
    known = [value for told in points.values() for measured, predicted, _ in told for value in (measured, predicted)]
    ends = [min(known) / 1.3, max(known) * 1.3]
    axes.plot(ends, ends, color=INK, lw=1)
    for factor in (0.9, 1.1):
        axes.plot(ends, [factor * end for end in ends], "--", color=INK, lw=0.6)
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, ends[0], ends[1], seconds)
    axes.set_xlabel("measured time")
    axes.set_ylabel("time by the model")
    titled(axes, "Operators on one accelerator")
    legend_below(figure, labelled(axes))
    return figure
