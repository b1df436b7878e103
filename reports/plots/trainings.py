"""Plots of a training: the loss against steps and against time, and the loads of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..content.colours import COLOURS, SERIES
from .style import INK, WIDTH, blank, framed, labelled, legend_below, number_axis, percent_axis, titled

SMOOTH = 0.9
"""Weight of the loss so far in the line that goes through the single steps'."""


def loss(
    losses: Mapping[str, Sequence[float]], entropy: float | None, seconds: Mapping[str, Sequence[float]] | None
) -> Figure:
    """The loss of each run against its steps, or against the ``seconds`` that its steps took, and what no model goes below."""
    figure, axes = blank()
    for (name, values), colour in zip(losses.items(), SERIES, strict=False):
        along = np.arange(1, len(values) + 1) if seconds is None else np.cumsum(seconds[name])
        axes.plot(along, values, color=colour, lw=0.6, alpha=0.35)
        axes.plot(along, smoothed(values), color=colour, lw=1.4, label=name)
    if entropy is not None:
        axes.axhline(entropy, ls="--", color=INK, lw=1, label="entropy of the data")
    axes.set_xlabel("step" if seconds is None else "seconds of training")
    axes.set_ylabel("loss, nats a word")
    number_axis(axes.xaxis)
    titled(axes, "Loss" if seconds is None else "Loss against time")
    legend_below(figure, labelled(axes))
    return figure


def smoothed(values: Sequence[float]) -> list[float]:
    """Means that forget exponentially, without the bias of their beginning."""
    found, mean = [], 0.0
    for number, value in enumerate(values, 1):
        mean = SMOOTH * mean + (1 - SMOOTH) * value
        found.append(mean / (1 - SMOOTH**number))
    return found


def predicted(first: int, predictions: Sequence[float], measured: Sequence[float]) -> Figure:
    """Each step's seconds, predicted and measured, above its relative error; ``first`` is the number of the first step."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    along = np.arange(first + 1, first + len(measured) + 1)
    marker = "." if len(measured) == 1 else ""
    for values, name, colour in ((measured, "measured", SERIES[1]), (predictions, "predicted", SERIES[0])):
        above.plot(along, 1e3 * np.asarray(values), color=colour, lw=1.1, marker=marker, label=name)
    error = np.asarray(predictions) / np.maximum(measured, 1e-300) - 1
    below.axhline(0.0, color=INK, lw=0.8)
    below.plot(along, error, color=SERIES[2], lw=1.0, marker=marker)
    for axes in (above, below):
        framed(axes)
    above.set_ylim(bottom=0)
    above.set_ylabel("ms a step")
    below.set_ylabel("relative error")
    below.set_xlabel("step")
    number_axis(below.xaxis)
    percent_axis(below.yaxis, signed=True)
    titled(above, "Steps, predicted and measured")
    legend_below(figure, labelled(above))
    return figure


def balance(wanted: Sequence[float], carried: Sequence[float]) -> Figure:
    """The fullest rank's load over the mean in each step, wanted and carried."""
    figure, axes = blank()
    along = np.arange(1, len(wanted) + 1)
    axes.plot(along, wanted, color=COLOURS["all_to_all"], lw=0.8, label="wanted")
    axes.plot(along, carried, color=COLOURS["compute"], lw=1.2, label="carried")
    axes.set_xlabel("step")
    axes.set_ylabel("fullest rank over the mean")
    number_axis(axes.xaxis)
    titled(axes, "Balance of experts")
    legend_below(figure, labelled(axes))
    return figure
