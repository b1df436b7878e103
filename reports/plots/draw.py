"""Makes a figure of what a report says is to be drawn, and files of figures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, assert_never

from matplotlib.figure import Figure
from matplotlib.ticker import Formatter

from ..content.figures import (
    Bars,
    Beside,
    Breakdown,
    ClaimErrors,
    ExpertLoad,
    FigureContent,
    MemoryByPart,
    ScalingCurve,
    Series,
    StepsByCategory,
)
from .reproductions import bars, beside, claim_errors, series
from .runs import breakdown, expert_load, memory, steps_by_category
from .scaling import scaling

DPI = 192
"""Of PNG files: a thousand pixels wide, so that they are sharp on a page and legible at 400 pixels."""


def draw(content: FigureContent) -> Figure:
    """The figure of this content."""
    match content:
        case ScalingCurve(study, published, note):
            return scaling(study, published, note)
        case Breakdown(summaries, what):
            return breakdown(summaries, what)
        case StepsByCategory(summaries, title, what, published, note):
            return steps_by_category(summaries, title, what, published, note)
        case ExpertLoad(loads):
            return expert_load(loads)
        case MemoryByPart(tables, what):
            return memory(tables, what)
        case Beside(rows, what, title):
            return beside(rows, what, title)
        case Series(curves, x, y, title, logarithmic):
            return series(curves, x, y, title, logarithmic)
        case Bars(sizes, what, title, names, limit):
            return bars(sizes, what, title, names, limit)
        case ClaimErrors(errors, kinds):
            return claim_errors(errors, kinds)
    assert_never(content)


def as_svg(figure: Figure) -> str:
    """A figure as SVG text, the same for the same figure."""
    drawn = io.StringIO()
    with _to_the_letter(figure):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def as_png(figure: Figure) -> bytes:
    """A figure as PNG."""
    drawn = io.BytesIO()
    with _to_the_letter(figure):
        figure.savefig(drawn, format="png", dpi=DPI)
    return drawn.getvalue()


@contextmanager
def _to_the_letter(figure: Figure) -> Iterator[None]:
    """Texts are drawn as they stand: a ``$`` in a model's name begins no formula, and what cannot be printed is named.

    Letters that the font lacks are boxes.
    """
    import matplotlib
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    settings: dict[Any, Any] = {"text.parse_math": False, "svg.hashsalt": "athanor", "svg.fonttype": "path"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                if not isinstance(formatter := axis.get_major_formatter(), ScalarFormatter):
                    axis.set_major_formatter(FuncFormatter(partial(_printable_tick, formatter)))
        yield


def _printable_tick(formatter: Formatter, value: float, place: int | None) -> str:
    return printable(formatter(value, place))


def printable(text: str) -> str:
    """Text with what cannot be printed written as escapes; line breaks stay."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)
