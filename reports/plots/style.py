"""How all plots look: size, colours, legends, and ticks that are read without knowing powers of ten.

Figures are as wide as :data:`WIDTH`, so that their letters can still be read where a page shows them 400 pixels wide; legends
stand below. No text is smaller than :data:`SMALL`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from math import ceil, log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ...hardware.units import binary, si
from ..content.colours import COLOURS

WIDTH = 5.2
"""Inches."""

LEAST_HEIGHT = 2.0
"""Of a plot with its title and labels, in inches: lower ones have no room for these."""

SMALL, TEXT, TITLE = 8.0, 9.0, 10.5
"""Sizes of letters in points: of notes and many ticks, of all else, of titles."""

INK, PAPER, GRID, PUBLISHED = "#333333", "#ffffff", "#e6e6e6", "#d1495b"
MARKERS = "os^vD"

MOST_TICKS = 6
LEGEND_LETTERS = 56
"""Letters that a row of a legend has room for."""


def blank(height: float = 3.7) -> tuple[Figure, Axes]:
    """A figure with one plot, its frame and grid as all plots have them; the height of the plot without its legend, in inches."""
    figure = Figure(figsize=(WIDTH, max(height, LEAST_HEIGHT)), layout="constrained")
    axes = figure.add_subplot()
    framed(axes)
    return figure, axes


def framed(axes: Axes) -> None:
    """The frame, the grid and the letters of a plot."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=TEXT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(TEXT)


def titled(axes: Axes, title: str, pad: float | None = None, names: bool = False) -> None:
    """A title, broken into lines that there is room for; less, where ``names`` stand to the left of the plot."""
    axes.set_title(wrapped(title, 36 if names else 52), loc="left", fontsize=TITLE, pad=pad)


def wrapped(text: str, letters: int) -> str:
    """Text in lines of at most so many letters; what has no spaces is broken where it ends a line."""
    from textwrap import wrap

    return "\n".join("\n".join(wrap(line, letters)) or line for line in text.split("\n"))


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend below the plot, in as many columns as there is room for; the figure grows by its rows."""
    if not handles:
        return
    for handle in handles:
        handle.set_label(wrapped(str(handle.get_label()), LEGEND_LETTERS))
    labels = [str(handle.get_label()).split("\n") for handle in handles]
    columns = _columns([max(map(len, lines)) for lines in labels])
    rows = ceil(len(handles) / columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.06 + 0.175 * rows * max(map(len, labels)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL)


def _columns(letters: Sequence[int]) -> int:
    """The most columns, at most four, that entries of so many letters fit into when they fill one column after the other."""
    for columns in range(min(4, len(letters)), 1, -1):
        short, longer = divmod(
            len(letters), columns
        )  # as matplotlib splits entries: the first columns are the longer ones
        ends = [0, *accumulate([short + 1] * longer + [short] * (columns - longer))]
        if sum(max(letters[start:end]) + 7 for start, end in pairwise(ends)) <= LEGEND_LETTERS + 14:
            return columns
    return 1


def labelled(axes: Axes) -> list[Any]:
    """The artists of a plot that have a label."""
    return list(axes.get_legend_handles_labels()[0])


def swatches(categories: Iterable[str]) -> list[Any]:
    """Legend entries of categories."""
    return [Patch(facecolor=COLOURS[category], label=category.replace("_", "-")) for category in categories]


def names_below(axes: Axes, names: Sequence[str], at: Sequence[float] | None = None) -> None:
    """Names at the ticks of the x axis: at a slant, with their ends at the ticks, where they have no room side by side."""
    axes.set_xticks(list(at) if at is not None else range(len(names)), [wrapped(name, 24) for name in names])
    room = LEGEND_LETTERS / max(1, len(names))
    if max((len(line) for name in names for line in name.split("\n")), default=0) > room:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor", fontsize=SMALL)


def names_left(axes: Axes, names: Sequence[str], at: Iterable[float] | None = None) -> None:
    """Names at the ticks of the y axis, small where they are many, on two lines where they are long, and then cut."""
    shown = ["\n".join(wrapped(name, 30).split("\n")[:2]) + ("…" if len(name) > 60 else "") for name in names]
    axes.set_yticks(list(at) if at is not None else range(len(names)), shown)
    if len(names) > 6 or max(map(len, names), default=0) > 24:
        axes.tick_params(axis="y", labelsize=SMALL)


def number_axis(axis: Axis, shown: Callable[[float], str] | None = None) -> None:
    """Few ticks at round numbers, written plainly: no powers of ten, no offsets."""
    axis.set_major_locator(MaxNLocator(MOST_TICKS - 1))
    _written(axis, shown or plain)


def percent_axis(axis: Axis, signed: bool = False) -> None:
    """Shares as percents."""
    number_axis(axis, lambda value: f"{round(100 * value, 6):+,.6g} %" if signed and value else f"{100 * value:,.6g} %")


def log_axis(axis: Axis, low: float, high: float, shown: Callable[[float], str] | None = None) -> None:
    """A logarithmic axis from ``low`` to ``high`` with few ticks at round numbers: 1, 2 and 5 of a decade, or fewer.

    Where less than a factor of four lies between the ends, ticks are those of a linear axis.
    """
    name = "x" if axis.axis_name == "x" else "y"  # type: ignore[attr-defined]
    axes = axis.axes
    getattr(axes, f"set_{name}scale")("log")
    getattr(axes, f"set_{name}lim")(low, high)
    decades = log10(high / low)
    if decades < 0.6:
        ticks = [
            tick for tick in MaxNLocator(MOST_TICKS - 1).tick_values(low, high) if low <= tick <= high and tick > 0
        ]
    else:
        subs = (1.0, 2.0, 5.0) if decades < 1.8 else (1.0, 3.0) if decades < 3.6 else (1.0,)
        ticks = [tick for tick in LogLocator(subs=subs, numticks=100).tick_values(low, high) if low <= tick <= high]
        ticks = ticks[:: ceil(len(ticks) / (MOST_TICKS + 1))]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    _written(axis, shown or plain)


def chosen_ticks(axis: Axis, ticks: Sequence[float], shown: Callable[[float], str] | None = None) -> None:
    """Ticks at these values of a logarithmic axis to base two: all of few, every second or third of many."""
    name = axis.axis_name  # type: ignore[attr-defined]
    getattr(axis.axes, f"set_{name}scale")("log", base=2)
    kept = list(ticks)[:: max(1, ceil(len(ticks) / 7))]
    axis.set_major_locator(FixedLocator(kept))
    axis.set_minor_locator(NullLocator())
    _written(axis, shown or plain)


def bytes_axis(axis: Axis, sizes: Sequence[float]) -> None:
    """A logarithmic axis with ticks at these sizes, or at some of them where they are many."""
    name = axis.axis_name  # type: ignore[attr-defined]
    getattr(axis.axes, f"set_{name}scale")("log", base=4)
    getattr(axis.axes, f"set_{name}lim")(min(sizes) / 1.5, max(sizes) * 1.5)
    axis.set_major_locator(FixedLocator(list(sizes)[:: ceil(len(sizes) / MOST_TICKS)]))
    axis.set_minor_locator(NullLocator())
    _written(axis, nbytes)


def _written(axis: Axis, shown: Callable[[float], str]) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def plain(value: float) -> str:
    """A number as people write it: ``0.995``, ``96,000``."""
    text = f"{round(value, 12):,.6f}" if abs(value) < 1e6 else f"{value:,.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def seconds(value: float) -> str:
    """A time with an SI prefix."""
    return si(value, "s", 3)


def nbytes(value: float) -> str:
    """A size as KiB, MiB, or with an SI prefix."""
    return binary(round(value)) if value else "0"


def rate_unit(most: float, unit: str) -> tuple[float, str]:
    """The factor and the name of the unit in which ``most`` has one to three digits before its point."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if most >= factor:
            return factor, f"{prefix}{unit}"
    return 1.0, unit
