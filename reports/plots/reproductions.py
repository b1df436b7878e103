"""Plots of reproductions: published beside simulated, series over a size, and how far claims are from what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from ..content.colours import COLOURS, SERIES
from .style import (
    INK,
    MARKERS,
    PAPER,
    PUBLISHED,
    SMALL,
    blank,
    chosen_ticks,
    labelled,
    legend_below,
    log_axis,
    names_below,
    names_left,
    number_axis,
    plain,
    titled,
)

SIDE_BY_SIDE = 6
"""More rows than this are drawn as lines of dots."""


def beside(rows: Mapping[str, tuple[float, float]], what: str, title: str) -> Figure:
    """Published and simulated values of each row with the simulated one's error: pairs of bars, or of many rows pairs of dots."""
    if len(rows) > SIDE_BY_SIDE:
        return _dots(rows, what, title)
    figure, axes = blank()
    for place, (target, simulated) in enumerate(rows.values()):
        axes.bar(place - 0.2, target, 0.38, color=PUBLISHED, label=None if place else "published")
        axes.bar(place + 0.2, simulated, 0.38, color=COLOURS["compute"], label=None if place else "simulated")
        error = f"{simulated / target - 1:+.0%}"
        axes.text(place, max(target, simulated), error, ha="center", va="bottom", fontsize=SMALL, color=INK)
    names_below(axes, list(rows))
    number_axis(axes.yaxis)
    axes.set_ylabel(what)
    axes.set_xlabel("run")
    titled(axes, title)
    axes.set_ylim(0, 1.12 * max(max(pair) for pair in rows.values()))
    legend_below(figure, labelled(axes))
    return figure


def _dots(rows: Mapping[str, tuple[float, float]], what: str, title: str) -> Figure:
    """A line for each row, from the published value to the simulated one."""
    figure, axes = blank(height=1.2 + 0.24 * len(rows))
    most = max(max(pair) for pair in rows.values())
    for place, (target, simulated) in enumerate(rows.values()):
        axes.plot([target, simulated], [place, place], "-", color=INK, lw=0.8, zorder=1)
        axes.plot(target, place, "D", ms=5, color=PUBLISHED, label=None if place else "published")
        axes.plot(simulated, place, "o", ms=5, color=COLOURS["compute"], label=None if place else "simulated")
        error = f"{simulated / target - 1:+.0%}"
        axes.annotate(error, (max(target, simulated), place), (6, 0), textcoords="offset points", va="center").set(
            fontsize=SMALL, color=INK
        )
    names_left(axes, list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.12 * most)
    number_axis(axes.xaxis)
    axes.set_xlabel(what)
    axes.set_ylabel("run")
    titled(axes, title, names=True)
    legend_below(figure, labelled(axes))
    return figure


def series(
    curves: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, title: str, logarithmic: bool = True
) -> Figure:
    """Curves of ``(x, y)`` points by name; with ``logarithmic`` both axes are."""
    figure, axes = blank()
    for place, (name, points) in enumerate(curves.items()):
        style: dict[str, Any] = {
            "marker": MARKERS[place % len(MARKERS)],
            "color": SERIES[place % len(SERIES)],
            "label": name,
        }
        line = ("-", "--", ":")[place % 3]  # curves that coincide are seen through each other
        axes.plot([at for at, _ in points], [value for _, value in points], line, lw=1.6, ms=5, **style)
    if logarithmic:
        chosen_ticks(axes.xaxis, sorted({at for points in curves.values() for at, _ in points}))
        drawn = [value for points in curves.values() for _, value in points]
        log_axis(axes.yaxis, min(drawn) / 1.2, max(drawn) * 1.2)
    else:
        axes.set_ylim(bottom=0)
        number_axis(axes.xaxis)
        number_axis(axes.yaxis)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    titled(axes, title)
    legend_below(figure, labelled(axes))
    return figure


def bars(
    sizes: Mapping[str, float], what: str, title: str, names: str, limit: tuple[float, str] | None = None
) -> Figure:
    """A bar for each name; ``names`` says what tells them apart; ``limit`` is a value and what it is, drawn across."""
    figure, axes = blank(height=1.3 + 0.36 * len(sizes))
    places = range(len(sizes))
    axes.barh(places, list(sizes.values()), 0.6, color=COLOURS["compute"])
    for place, size in enumerate(sizes.values()):
        text = axes.annotate(f"{size:,.3g}", (size, place), (4, 0), textcoords="offset points", va="center")
        text.set(fontsize=SMALL, color=INK, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1})
    if limit:
        axes.axvline(limit[0], color=PUBLISHED, lw=1.6, label=limit[1])
    names_left(axes, list(sizes))
    axes.set_ylim(len(sizes) - 0.5, -0.5)
    axes.set_xlim(0, 1.15 * max(*sizes.values(), limit[0] if limit else 0))
    axes.grid(axis="y", visible=False)
    number_axis(axes.xaxis)
    axes.set_xlabel(what)
    axes.set_ylabel(names)
    titled(axes, title, names=True)
    legend_below(figure, labelled(axes))
    return figure


KINDS = {"arithmetic": (SERIES[2], "s"), "contradiction": (SERIES[3], "X"), "fitted": (SERIES[4], "^")}
KINDS |= {"predicted": (SERIES[0], "o")}
"""Colour and marker of the kinds of claims."""

MOST_ERROR = 0.6
"""Claims that are off by more stand at the edge."""


def claim_errors(errors: Mapping[str, Sequence[float]], kinds: Mapping[str, str]) -> Figure:
    """How far each claim is from what was published, a line a kind of claim; names with one error each.

    ``errors`` has the relative errors by kind, ``kinds`` what each kind is called.
    """
    figure, axes = blank(height=1.1 + 0.4 * len(errors))
    axes.axvline(0, color=INK, lw=0.8)
    for place, (kind, values) in enumerate(errors.items()):
        colour, marker = KINDS[kind]
        cut = [max(-MOST_ERROR, min(MOST_ERROR, value)) for value in values]
        axes.plot(cut, [place] * len(cut), marker, ls="none", ms=6, alpha=0.6, mew=0, color=colour)
    names_left(axes, [f"{kinds[kind]} ({len(values)})" for kind, values in errors.items()])
    axes.set_ylim(len(errors) - 0.5, -0.5)
    most = max((abs(value) for values in errors.values() for value in values), default=0.0)
    reach = next(end for end in (0.02, 0.05, 0.1, 0.2, 0.4, MOST_ERROR) if end >= min(most, MOST_ERROR))
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    axes.xaxis.set_major_locator(FixedLocator([-reach, -reach / 2, 0, reach / 2, reach]))
    ends = f" (cut at {reach:.0%})" if most > reach else ""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{plain(100 * value)} %"))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"simulated over published, less one{ends}")
    axes.set_ylabel("kind of claim")
    titled(axes, "How far claims are from what was published", names=True)
    return figure
