"""What each stream of a rank did in a step, and when: streams as lanes, categories as colours, phases marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...hardware.units import si
from ...workloads.schedule.operation import CATEGORIES
from ..content.colours import COLOURS
from ..studies.comparison.timeline import Timeline
from .style import INK, SMALL, TEXT, WIDTH, legend_below, number_axis, swatches, wrapped

MOST_BARS = 5000
"""With more bars than this a timeline is drawn as pixels, so that a report stays small."""


def timelines(found: Mapping[str, Timeline], height: float) -> Figure:
    """Timelines one above the other, each named before its ranks; the height of all in inches, without the legend."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    every = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    longest = max(each.seconds for each in found.values())
    streams = list(dict.fromkeys(bar.stream for each in found.values() for bar in each.bars))
    for axes, (name, each) in zip(every, found.items(), strict=True):
        lanes(axes, each, streams, longest)
        what = f"{name}: {each.ranks}, step {each.step}, {si(each.seconds, 's')}"
        axes.set_title(wrapped(what, 56), loc="left", fontsize=TEXT, pad=15)
    last = every[-1]
    last.set_xlabel("ms from the start of the step", fontsize=TEXT)
    last.set_xlim(0, 1.01e3 * longest)
    number_axis(last.xaxis)
    last.tick_params(labelsize=TEXT)
    legend_below(figure, _legend(found.values()))
    return figure


def _legend(found: Iterable[Timeline]) -> list[Any]:
    drawn = {bar.category for each in found for bar in each.bars if bar.end > bar.start}
    ends = [Line2D([], [], color=INK, lw=1.2, label="end of the step")]
    return [*swatches(category for category in CATEGORIES if category in drawn), *ends]


def lanes(axes: Axes, found: Timeline, streams: Sequence[str], longest: float) -> None:
    """The lanes of one timeline; what is too close to be told apart is drawn as one, and bars have thin edges to be seen."""
    bars = found.merged(gap=longest / 4000)
    for lane, stream in enumerate(streams):
        for category in dict.fromkeys(bar.category for bar in bars):
            spans = [
                (1e3 * bar.start, 1e3 * max(bar.end - bar.start, 0.0))
                for bar in bars
                if (bar.stream, bar.category) == (stream, category)
            ]
            axes.broken_barh(
                spans, (lane - 0.36, 0.72), color=COLOURS[category], lw=0.3, rasterized=len(bars) > MOST_BARS
            )
    axes.axvline(1e3 * found.seconds, color=INK, lw=1.2)
    for start in found.phases.values():
        axes.axvline(1e3 * start, color=INK, lw=0.8, ls=":")
    for phase, start in _apart(found.phases, longest / 12).items():
        axes.annotate(
            phase,
            (1e3 * start, 1),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(2, 3),
            fontsize=SMALL,
        )
    axes.set_yticks(range(len(streams)), streams, fontsize=SMALL)
    axes.set_ylabel("stream", fontsize=TEXT)
    axes.set_ylim(len(streams) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _apart(phases: Mapping[str, float], room: float) -> dict[str, float]:
    """Names of phases with when they begin; those with too little room between them as one name."""
    found: dict[str, float] = {}
    for phase, start in sorted(phases.items(), key=lambda each: each[1]):
        last = next(reversed(found), None)
        if last is not None and start - found[last] < room:
            found[f"{last}, {phase}"] = found.pop(last)
        else:
            found[phase] = start
    return found
