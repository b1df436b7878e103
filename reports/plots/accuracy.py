"""Plots of accuracy: predicted against measured, and errors by source, by scale and by strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..content.colours import SERIES
from ..studies.accuracy.memory_rows import BYTES
from ..studies.accuracy.validate import Accuracy, AccuracyOutcome, accelerator_of
from .style import INK, MARKERS, SMALL, blank, labelled, legend_below, log_axis, number_axis, percent_axis, titled
from .style import seconds as shown_seconds

BAND = 0.1
"""The band around the diagonal."""

CLIP = 1.0
"""Errors beyond this are drawn at the edge of the plot."""


def drawings(found: Accuracy) -> Iterator[tuple[str, str, Figure]]:
    """(name, caption, figure) of each plot that there is something for."""
    steps = [each for each in found.predicted if each.prediction and each.prediction.measured_seconds]
    if steps:
        yield "predicted_measured", "Seconds of a step, predicted and measured, with a band of 10 %.", diagonal(steps)
        yield "errors_by_scale", "Errors by the accelerators of the run.", by_scale(steps)
        yield "errors_by_strategy", "Errors by strategy; a row stands under each that it uses.", by_strategy(steps)
    if cards := [each for each in found.memory["measured"] if each.prediction]:
        yield "memory", "Memory of an accelerator, predicted and read off, with a band of 10 %.", memory(cards)
    if any(each.prediction for each in found.listed):
        yield "errors_by_source", "Errors of every row, by source; the bar is the mean.", by_source(found)


def diagonal(steps: Sequence[AccuracyOutcome]) -> Figure:
    """Predicted against measured seconds on logarithmic axes, a colour for each kind of accelerator."""
    points = {
        kind: [(made.measured_seconds or 0.0, made.seconds or 0.0) for each in rows if (made := each.prediction)]
        for kind, rows in _by(steps, accelerator).items()
    }
    return _against(points, "time of a step", "log", "Steps, predicted and measured")


def memory(cards: Sequence[AccuracyOutcome]) -> Figure:
    """The same of gigabytes, a colour for each source."""
    points = {
        name: [
            (each.row.value * BYTES[each.row.unit] / 1e9, made.value * BYTES[each.row.unit] / 1e9)
            for each in rows
            if (made := each.prediction)
        ]
        for name, rows in _by(cards, lambda each: each.row.publication).items()
    }
    return _against(points, "GB", "linear", "Memory of an accelerator, predicted and measured")


def _against(points: dict[str, list[tuple[float, float]]], unit: str, scale: str, title: str) -> Figure:
    """Pairs of measured and predicted, by kind, about the diagonal."""
    figure, axes = blank(height=4.6)
    known = [pair for pairs in points.values() for pair in pairs]
    ends = np.array([min(map(min, known)) * 0.7, max(map(max, known)) * (1.4 if scale == "log" else 1.1)])
    axes.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color="#e8eef3", lw=0, label="within 10 %")
    axes.plot(ends, ends, color=INK, lw=0.8)
    for (kind, pairs), colour, marker in zip(
        points.items(), _cycle(SERIES), _cycle(MARKERS, turned=True), strict=False
    ):
        axes.plot(*zip(*pairs, strict=True), marker, color=colour, ms=4, alpha=0.75, mew=0, label=kind)
    for axis in (axes.xaxis, axes.yaxis):
        if scale == "log":
            log_axis(axis, float(ends[0]), float(ends[1]), shown_seconds)
        else:
            number_axis(axis)
    axes.set(xlim=ends, ylim=ends, xlabel=f"measured {unit}", ylabel=f"predicted {unit}")
    titled(axes, title)
    legend_below(figure, labelled(axes))
    return figure


def by_source(found: Accuracy) -> Figure:
    """Errors of every source: a dot for each row, a bar for the mean."""
    groups: dict[str, list[AccuracyOutcome]] = {}  # sources whose shortened names are the same stand in one line
    for name, rows in found.sources.items():
        if known := [each for each in rows if each.error is not None]:
            groups.setdefault(_shortened(name), []).extend(known)
    return _strips(groups, "source")


def by_strategy(steps: Sequence[AccuracyOutcome]) -> Figure:
    """Errors of rows that use a strategy."""
    found = {name: [each for each in steps if uses(each)] for name, uses in STRATEGIES.items()}
    return _strips({name: rows for name, rows in found.items() if rows}, "strategy")


def by_scale(steps: Sequence[AccuracyOutcome]) -> Figure:
    """Errors against the number of accelerators."""
    figure, axes = blank()
    for (kind, rows), colour, marker in zip(
        _by(steps, accelerator).items(), _cycle(SERIES), _cycle(MARKERS, turned=True), strict=False
    ):
        ranks = [each.prediction.setting.mesh.ranks for each in rows if each.prediction and each.prediction.setting]
        axes.plot(ranks, [_clipped(each) for each in rows], marker, color=colour, ms=4, alpha=0.75, mew=0, label=kind)
    axes.axhspan(-BAND, BAND, color="#e8eef3", lw=0, zorder=0)
    known = [each.prediction.setting.mesh.ranks for each in steps if each.prediction and each.prediction.setting]
    log_axis(axes.xaxis, min(known) / 1.5, max(known) * 1.5)
    percent_axis(axes.yaxis, signed=True)
    axes.set(xlabel="accelerators of the run", ylabel="error of the prediction")
    titled(axes, "Errors by size of the run")
    legend_below(figure, labelled(axes))
    return figure


def _strips(groups: dict[str, list[AccuracyOutcome]], what: str) -> Figure:
    """A line of dots for each group, the mean as a bar; what is off by more than the plot stands at its edge."""
    figure, axes = blank(height=1.1 + 0.24 * len(groups))
    axes.axvspan(-BAND, BAND, color="#e8eef3", lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.8)
    for place, rows in enumerate(groups.values()):
        errors = [_clipped(each) for each in rows]
        axes.plot(errors, [place] * len(errors), "o", color=SERIES[0], ms=4, alpha=0.5, mew=0)
        mean = float(np.mean([each.error for each in rows]))
        axes.plot([max(-CLIP, min(CLIP, mean))], [place], "|", color=SERIES[1], ms=12, mew=2)
    axes.set_yticks(range(len(groups)), [f"{name} ({len(rows)})" for name, rows in groups.items()], fontsize=SMALL)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(-CLIP * 1.04, CLIP * 1.04)
    percent_axis(axes.xaxis, signed=True)
    axes.set_xticks([-CLIP, -CLIP / 2, 0, CLIP / 2, CLIP])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"error of the prediction\n(beyond {CLIP:.0%} at the edge)")
    axes.set_ylabel(what)
    titled(axes, f"Errors by {what}, and their mean", names=True)
    return figure


def accelerator(each: AccuracyOutcome) -> str:
    """The kind of accelerator of a run."""
    return accelerator_of(each.row.machine_used)


def _axis(name: str) -> Callable[[AccuracyOutcome], bool]:
    return lambda each: bool(
        each.prediction and each.prediction.setting and each.prediction.setting.mesh.size(name) > 1
    )


def _option(name: str, *values: str) -> Callable[[AccuracyOutcome], bool]:
    return lambda each: bool(
        each.prediction and each.prediction.setting and getattr(each.prediction.setting.plan, name) in values
    )


STRATEGIES: dict[str, Callable[[AccuracyOutcome], bool]] = {
    "data parallel": _axis("dp"),
    "tensor parallel": _axis("tp"),
    "pipeline": _axis("pp"),
    "interleaved": _option("pipeline", "interleaved"),
    "experts": _axis("ep"),
    "ZeRO 1, 2": _option("zero", "1", "2"),
    "ZeRO 3, ++": _option("zero", "3", "++"),
    "full recomputation": _option("recompute", "full"),
    "selective recomputation": _option("recompute", "selective"),
    "fused attention": _option("attention", "fused"),
}
"""Strategies of a plan, and how to tell that a row uses one."""


def _by(rows: Sequence[AccuracyOutcome], key: Callable[[AccuracyOutcome], str]) -> dict[str, list[AccuracyOutcome]]:
    found: dict[str, list[AccuracyOutcome]] = {}
    for each in rows:
        found.setdefault(key(each), []).append(each)
    return found


def _clipped(each: AccuracyOutcome) -> float:
    assert each.error is not None
    return max(-CLIP, min(CLIP, each.error))


def _cycle(values: Sequence[str], turned: bool = False) -> list[str]:
    """Values again and again; ``turned``, from one place further each time, so that pairs with another list differ."""
    count = len(values)
    return [values[(at + turned * (at // count)) % count] for at in range(4 * count)]


def _shortened(name: str, letters: int = 34) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
