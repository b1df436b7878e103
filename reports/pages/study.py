"""Files of a study: its points as Parquet and CSV, plots, sensitivity, report; and its table on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError, nearest
from ..content.sections import Picture, Section
from ..content.studies import answer, column_title, columns_of, heading, point_rows, reason_rows, sections
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from rich.console import Console

    from ...sim.studies.study.run import StudyResult
    from ...sim.studies.study.study_file import PlotRequest

MOST_SHOWN = 20
"""Points that the terminal shows."""


@all_or_nothing
def write_study_result(
    folder: Folder, result: StudyResult, plots: Sequence[PlotRequest], command: str, title: str
) -> None:
    """Write ``points.parquet``, ``points.csv``, ``sensitivity.csv`` where it was asked for, plots and ``report.html``."""
    import pandas as pd

    frame = result.frame()
    folder.parquet("points.parquet", frame)
    folder.frame("points.csv", frame)
    if result.sensitivity:
        folder.frame("sensitivity.csv", pd.DataFrame(result.sensitivity))
    rows = list(result.rows())
    pictures = [Picture(folder.figure(name, figure), heading(each.y)) for name, each, figure in _drawn(rows, plots)]
    first, *others = sections(result)
    warnings = list(dict.fromkeys(row["warnings"] for row in rows if row.get("warnings")))[:MOST_SHOWN]
    parts = [replace(first, figures=pictures), *others, _base(result)]
    write_report(folder, title, answer(result), parts, [command], warnings)


def check_plots(result: StudyResult, plots: Sequence[PlotRequest]) -> None:
    """Raise :class:`InputError` for columns that no point has, where points have any."""
    columns = dict.fromkeys(name for row in result.rows() for name in row)
    if not result.counts()["ok"]:
        return
    for number, each in enumerate(plots):
        for key in ("x", "y", "series", "facets"):
            name = getattr(each, key)
            if name and name not in columns:
                raise InputError(f"plots.{number}.{key} is {name}: no such column{nearest(name, columns)}")


def show_study(console: Console, result: StudyResult) -> None:
    """The first points, reasons of those that failed, and the answer."""
    from rich.table import Table

    rows, columns = list(result.rows()), columns_of(result)
    table = Table(box=None, pad_edge=False)
    for name in ("point", *columns, "status"):
        table.add_column(column_title(name))
    for cells in point_rows(rows[:MOST_SHOWN], columns):
        table.add_row(*cells)
    console.print(table)
    if len(rows) > MOST_SHOWN:
        console.print(f"{len(rows) - MOST_SHOWN:,} more points: --out has all", markup=False)
    for status, count, reason in reason_rows(rows):
        console.print(f"{count} {status}: {reason}", markup=False)
    console.print(answer(result), markup=False)


def _drawn(rows: list[dict[str, Any]], plots: Sequence[PlotRequest]) -> Iterator[tuple[str, PlotRequest, Any]]:
    from ..plots.studies import study_plot

    for number, each in enumerate(plots):
        yield each.name or f"plot-{number + 1}", each, study_plot(rows, each)


def _base(result: StudyResult) -> Section:
    """What all points share."""
    base = result.file.base
    rows = [("machine", str(base.machine or "")), ("model", str(base.model or ""))]
    rows += [(f"plan.{key}", str(value)) for key, value in base.plan.items()]
    rows += [(f"machine.{key}", str(value)) for key, value in base.settings.items()]
    rows += [(f"{name}.{key}", str(value)) for name, table in base.commands.items() for key, value in table.items()]
    text = "What points do not say themselves; their exact inputs stand in the column inputs of points.csv."
    return Section("Base", text, ("key", "value"), [row for row in rows if row[1]], 2)
