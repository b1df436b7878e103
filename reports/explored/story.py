"""What a page tells of one result, as data: the answer, what is plotted, what is tabled. Nothing here draws or renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..content.sections import Section


@dataclass(frozen=True)
class Fact:
    """A number that answers a question: what it is, its text, a note; ``good`` where it is a verdict."""

    label: str
    value: str
    note: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Chart:
    """A plot that answers to the pointer and the keyboard.

    ``kind`` says who draws it: ``plot`` is a Vega-Lite ``content["spec"]`` over ``content["rows"]``, ``timeline`` operations in
    lanes, ``choice`` points behind sliders, ``table`` columns of which the reader picks. ``alt`` says in words what is seen.
    """

    kind: Literal["plot", "timeline", "choice", "picked"]
    alt: str
    caption: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class StoryPart:
    """A section with its plots.

    With ``filtered`` its table has a field to filter it by, and the plots show what is left: their rows have the number of the
    table's row under ``row``. ``links`` are addresses of the cells of the table's rows, where a server has pages of them.
    """

    section: Section
    charts: Sequence[Chart] = ()
    filtered: bool = False
    links: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Story:
    """A page's part about one result, the answer first, where it comes from last."""

    kind: str
    title: str
    answer: str
    facts: Sequence[Fact]
    parts: Sequence[StoryPart]
    sources: Sequence[Section] = ()
    warnings: Sequence[str] = ()
    commands: Sequence[str] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
