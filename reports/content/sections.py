"""Parts of a report: text, a table, figures that are drawn when the report is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .figures import FigureContent


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a report; the first ``text_columns`` columns of its table are text, the others numbers."""

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    text_columns: int = 1
    figures: Sequence[Picture] = field(default_factory=tuple)


@dataclass(frozen=True)
class Drawing:
    """A figure that is drawn when it is written: the name of its files, what it shows, and what is to be drawn."""

    name: str
    caption: str
    content: FigureContent


@dataclass(frozen=True)
class ReportPart:
    """A section with figures that are still to be drawn; its table is also ``shown`` on the terminal."""

    section: Section
    drawings: Sequence[Drawing] = ()
    shown: bool = True
