"""Plots of the validation study: predicted against measured steps, and the error of each cell."""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..content.colours import SERIES
from ..studies.runtime_validation import EXPERTS, RuntimeOutcome, Validation
from .style import (
    INK,
    SMALL,
    WIDTH,
    blank,
    framed,
    labelled,
    legend_below,
    log_axis,
    names_left,
    percent_axis,
    seconds,
    titled,
    wrapped,
)

NAMES = {
    "zero_fit": "nominal rates, nothing fitted",
    "calibrated": "calibrated in another job",
    "calibrated_gemm": "calibrated, computing for real",
}
"""What the predictions rest on."""

MARKS = {
    "moda, balancer none": "o",
    "moda, balancer swipe": "s",
    "opposite, balancer none": "^",
    "opposite, balancer swipe": "D",
    "ep": "h",
    "dp": "P",
    "fsdp": "X",
    "tp": "*",
    "pp": "v",
}
"""Shapes of plans, by their names."""

AIM = 0.08
"""The mean error that the study aims for from nominal rates, drawn as a band."""


def predicted_against_measured(found: Validation) -> Figure:
    """Predicted against measured step times, from nominal rates above and calibrated below."""
    figure = Figure(figsize=(WIDTH, 7.6), layout="constrained")
    outcomes = found.outcomes
    times = [each.nominal.step.measured for each in outcomes] + [each.nominal.step.predicted for each in outcomes]
    low, high = 0.85 * min(times), 1.15 * max(times)
    panels = figure.subplots(2, 1, sharex=True)
    trees = list(dict.fromkeys(each.cell.tree.name for each in outcomes))
    for axes, kind in zip(panels, ("zero_fit", "calibrated"), strict=True):
        framed(axes)
        line = np.array([low, high])
        axes.fill_between(line, line * (1 - AIM), line * (1 + AIM), color=INK, alpha=0.08, lw=0)
        axes.plot(line, line, color=INK, lw=0.8)
        for each in outcomes:
            pair = each.nominal if kind == "zero_fit" else each.calibrated
            axes.plot(
                pair.step.measured,
                pair.step.predicted,
                MARKS[_plan(each)],
                color=SERIES[trees.index(each.cell.tree.name) % len(SERIES)],
                fillstyle="none" if each.cell.compute == "gemm" else "full",
                ms=6,
                alpha=0.85,
            )
        titled(axes, NAMES[kind])
        for axis in (axes.xaxis, axes.yaxis):
            log_axis(axis, low, high, seconds)
        axes.set_ylabel("predicted time of a step")
    panels[-1].set_xlabel("measured time of a step")
    computed = any(each.cell.compute == "gemm" for each in outcomes)
    legend_below(figure, _marks(trees, set(map(_plan, outcomes)), computed))
    return figure


def _plan(outcome: RuntimeOutcome) -> str:
    """The name of a plan."""
    cell = outcome.cell
    return f"{cell.placement}, balancer {cell.balancer}" if cell.plan == EXPERTS else cell.plan


def _marks(trees: Iterable[str], plans: Container[str], computed: bool) -> list[Line2D]:
    """Legend entries: colours of trees, shapes of plans."""
    handles = [
        Line2D([], [], marker="o", ls="", color=SERIES[number % len(SERIES)], label=name)
        for number, name in enumerate(trees)
    ]
    handles += [
        Line2D([], [], marker=mark, ls="", color=INK, alpha=0.6, label=name)
        for name, mark in MARKS.items()
        if name in plans
    ]
    if computed:
        handles.append(Line2D([], [], marker="o", ls="", color=INK, fillstyle="none", label="computes for real"))
    return handles


def errors_of_cells(outcomes: list[RuntimeOutcome]) -> Figure:
    """Signed errors of the step, a line for each cell, beside the variation of the measured steps."""
    figure, axes = blank(height=1.2 + 0.21 * len(outcomes))
    places = np.arange(len(outcomes))
    spread = np.array([each.nominal.step.variation or 0.0 for each in outcomes])
    axes.barh(
        places, 2 * spread, left=-spread, height=0.9, color=INK, alpha=0.12, label="variation of measured steps (± σ)"
    )
    for shift, kind, name in ((-0.2, "nominal", "nominal rates"), (0.2, "calibrated", "calibrated")):
        errors = [getattr(each, kind).step.relative_error or 0.0 for each in outcomes]
        axes.barh(places + shift, errors, height=0.4, color=SERIES[kind == "calibrated"], label=name)
    axes.axvline(0, color=INK, lw=0.8)
    trees = [each.cell.tree.name for each in outcomes]
    for tree in dict.fromkeys(trees):
        first, count = trees.index(tree), trees.count(tree)
        axes.axhline(first - 0.5, color=INK, lw=0.5, alpha=0.5)
        middle = axes.text(
            1.01, first + count / 2 - 0.5, wrapped(tree, 30), rotation=90, ha="left", va="center", fontsize=SMALL
        )
        middle.set_transform(axes.get_yaxis_transform())
    axes.set_ylim(len(outcomes) - 0.5, -0.5)
    names_left(axes, [_short(each) for each in outcomes])
    axes.grid(axis="y", visible=False)
    percent_axis(axes.xaxis, signed=True)
    axes.set_xlabel("error of the step")
    axes.set_ylabel("placement, balancer, skew")
    titled(axes, "Errors of each plan's step", names=True)
    legend_below(figure, labelled(axes))
    return figure


def _short(outcome: RuntimeOutcome) -> str:
    cell = outcome.cell
    return f"{cell.placement} {cell.balancer} {cell.skew:g}" if cell.plan == EXPERTS else cell.plan
