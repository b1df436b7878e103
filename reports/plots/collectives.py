"""Plots of collectives: times against size, the best by size and ranks, algorithms beside their bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ...hardware.units import binary, si
from ..content.colours import COLOURS, SERIES
from .style import (
    GRID,
    INK,
    MARKERS,
    PUBLISHED,
    SMALL,
    blank,
    bytes_axis,
    labelled,
    legend_below,
    log_axis,
    names_left,
    number_axis,
    seconds,
    titled,
)


def whose_bytes(operation: str) -> str:
    """Whose bytes the size of a collective counts."""
    return "from a rank to each other one" if operation == "all-to-all" else "of a rank's vector"


def times_by_size(
    times: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    what: str,
    styles: Mapping[str, tuple[int, str]] | None = None,
) -> Figure:
    """Seconds of collectives against bytes, ``(bytes, seconds)`` of each curve, both logarithmic.

    ``what`` says whose bytes they are; ``styles`` gives a curve the number of its colour and its line (``-``, ``--``).
    """
    figure, axes = blank()
    for place, (name, curve) in enumerate(times.items()):
        number, line = (styles or {}).get(name, (place, "-"))
        colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
        points = list(zip(*curve, strict=True))
        axes.plot(*points, line, marker=marker, ms=5, lw=1.6, color=colour, label=name)
    bytes_axis(axes.xaxis, sorted({size for curve in times.values() for size, _ in curve}))
    drawn = [each for curve in times.values() for _, each in curve]
    log_axis(axes.yaxis, min(drawn) / 1.3, max(drawn) * 1.3, seconds)
    axes.set_xlabel(f"bytes {what}")
    axes.set_ylabel("simulated time")
    titled(axes, title)
    legend_below(figure, labelled(axes))
    return figure


def best_by_size(best: Mapping[tuple[int, float], str], algorithms: Sequence[str], title: str, what: str) -> Figure:
    """The best algorithm by ``(ranks, bytes)`` as a coloured grid; ``algorithms`` keep their colours from plot to plot."""
    sizes, counts = (sorted({place[axis] for place in best}) for axis in (1, 0))
    figure, axes = blank(height=1.4 + 0.3 * len(counts))
    for (ranks, size), name in best.items():
        corner = (sizes.index(size), counts.index(int(ranks)))
        colour = SERIES[algorithms.index(name) % len(SERIES)]
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white"))
    axes.set(xlim=(0, len(sizes)), ylim=(0, len(counts)))
    axes.grid(visible=False)
    every = max(1, -(-len(sizes) // 6))
    axes.set_xticks([place + 0.5 for place in range(0, len(sizes), every)], [binary(size) for size in sizes[::every]])
    axes.set_yticks([place + 0.5 for place in range(len(counts))], [f"{count:,.0f}" for count in counts])
    axes.set_xlabel(f"bytes {what}")
    axes.set_ylabel("ranks")
    titled(axes, title)
    shown = [(number, name) for number, name in enumerate(algorithms) if name in best.values()]
    legend_below(figure, [Patch(facecolor=SERIES[number % len(SERIES)], label=name) for number, name in shown])
    return figure


def algorithm_times(times: Mapping[str, float], bound: float, title: str) -> Figure:
    """Seconds of each algorithm as bars, with the bound that no algorithm can pass."""
    figure, axes = blank(height=1.4 + 0.32 * len(times))
    names = list(times)[::-1]
    axes.barh(range(len(names)), [times[name] for name in names], color=COLOURS["compute"], height=0.6)
    names_left(axes, names)
    for place, name in enumerate(names):
        text = axes.annotate(
            si(times[name], "s"), (times[name], place), (4, 0), textcoords="offset points", va="center"
        )
        text.set(fontsize=SMALL, color=INK)
    axes.axvline(bound, color=PUBLISHED, ls="--", lw=1.4, label="lower bound")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, lw=0.8)
    axes.set_xlim(0, 1.25 * max(*times.values(), bound, 1e-12))
    number_axis(axes.xaxis, seconds)
    axes.set_xlabel("simulated time")
    axes.set_ylabel("algorithm")
    titled(axes, title, names=True)
    legend_below(figure, labelled(axes))
    return figure
