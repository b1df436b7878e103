"""Plots of a training: the loss against steps and against time, and the loads of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..content.colours import COLOURS, SERIES
from .style import INK, blank, labelled, legend_below, number_axis, titled

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
