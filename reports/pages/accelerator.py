"""What is shown and written of an accelerator's calibration: its numbers, and how far the model is from what was held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from ...hardware.units import si
from ..content.inputs import machine_section
from ..content.sections import Picture, Section
from ..content.words import percent
from ..studies.accelerator_errors import by_operator, constants, judged, plain, point_of, points_by_kind, verdict
from ..tables.runs import table
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from ...mpi_runtime.accelerator.calibrate import AcceleratorOutcome
    from ...mpi_runtime.accelerator.fit import HeldOutCheck

NUMBER_COLUMNS = ("key", "value", "standard error")
ERROR_COLUMNS = (
    "operator",
    "precision",
    "held out",
    "mean error",
    "median",
    "worst",
    "signed",
    "by time",
    "fitted: mean",
)

BEYOND = "Fused attention without a mask is measured, but neither fitted nor counted: the model has one rate, a causal mask's."


def show_accelerator(console: Console, outcome: AcceleratorOutcome) -> None:
    """Numbers, errors by operator and precision, and what to know before believing them."""
    machine = outcome.machine
    console.print(
        f"[bold]{escape(machine.name)}[/] ({escape(str(outcome.task.output))}): {escape(machine.description)}"
    )
    console.print(table("Measured and fitted", NUMBER_COLUMNS, _numbers(outcome)))
    console.print(table("The compute model's errors", ERROR_COLUMNS, _errors(outcome), 2, caption=BEYOND))
    console.print(verdict(outcome), markup=False)
    for warning in outcome.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


@all_or_nothing
def write_accelerator(folder: Folder, outcome: AcceleratorOutcome, command: str) -> None:
    """Write ``accelerator.json``, ``points.csv``, the plot ``predicted`` and ``report.html``."""
    import pandas as pd

    from ..plots.accelerator import predicted_against_measured
    from .html_page import write_report

    whole = plain(outcome) | {"checks": [point_of(each) for each in outcome.checks]}
    folder.json("accelerator.json", whole)
    folder.frame("points.csv", pd.DataFrame(whole["checks"]))
    drawn = folder.figure("predicted", predicted_against_measured(points_by_kind(outcome.checks)))
    picture = Picture(
        drawn, "Seconds of every point: measured, and by the model; hollow points were held out of the fit."
    )
    sections = [
        Section("The compute model's errors", BEYOND, ERROR_COLUMNS, list(_errors(outcome)), 2, [picture]),
        Section("Measured and fitted", "", NUMBER_COLUMNS, list(_numbers(outcome))),
        machine_section(outcome.machine),
    ]
    title = f"Calibration of an accelerator: {outcome.machine.name}"
    write_report(folder, title, verdict(outcome), sections, [command], outcome.warnings)


def _numbers(outcome: AcceleratorOutcome) -> Iterator[tuple[str, str, str]]:
    for kind, rate in outcome.machine.core_group.peak.items():
        source = outcome.machine.source(f"core_group.peak.{kind}")
        how = "best rate seen" if source.startswith("calibrated") else "nominal"
        yield f"core_group.peak.{kind}", f"{si(rate, 'FLOP/s')}, {how}", ""
    if outcome.fit.constants.shapes:
        yield (
            "core_group.tiles.shapes",
            ", ".join(f"{rows}x{columns}" for rows, columns in outcome.fit.constants.shapes),
            "",
        )
    for name, key, _, text in constants(outcome):
        yield key, text, outcome.fit.certainty(name)


def _errors(outcome: AcceleratorOutcome) -> Iterator[tuple[str, ...]]:
    for (kind, precision), checks in by_operator(outcome.checks).items():
        yield (kind, precision, *_row(checks, lambda _: True))
    yield ("all that count", "", *_row(outcome.checks, None))


def _row(checks: Iterable[HeldOutCheck], wanted: Callable[[HeldOutCheck], bool] | None) -> list[str]:
    held, fitted = (judged(list(checks), half, wanted) for half in ("held_out", "fitted"))
    row = [""] * 6
    if held:
        sizes = [f"{size:.1%}" for size in (held.mape, held.median)]
        row = [str(held.points), *sizes, percent(held.worst), percent(held.bias), f"{held.by_time:.1%}"]
    return [*row, f"{fitted.mape:.1%}" if fitted else ""]
