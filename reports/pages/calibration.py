"""What is shown and written of a calibration: numbers with their errors, fits, and how far simulations are from measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from ...hardware.units import si
from ..content.inputs import machine_section
from ..content.sections import Picture, Section
from ..content.words import percent
from ..plots import calibration as plots
from ..studies.calibration_checks import CollectiveCheck, CollectiveErrors, Told
from ..tables.runs import table
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from ...mpi_runtime.calibration.findings import FittedNumber
    from ...mpi_runtime.calibration.fits import Curve

NUMBER_COLUMNS = ("key", "value", "standard error", "samples", "rejected")
LEVEL_COLUMNS = ("level", "latency", "MPI library alone", "one pair's rate", "fit", "median error of the fit")
COLLECTIVE_COLUMNS = ("collective", "fit", "held out: median", "worst", "simulated: signed", "median", "worst")
NOMINAL_COLUMNS = ("nominal: signed", "median")
BAND_COLUMNS = ("payload of a rank", "points", "fit, held out", "simulated, nominal", "simulated, calibrated")
PRODUCT_COLUMNS = ("product", "measured", "rate", "model", "error")

MEASURED = (
    "Times include what this runtime itself does for a message, in Python; the column of the library says what is left"
    " without it."
)


def show_calibration(console: Console, told: Told) -> None:
    """Numbers, messages, collectives and what to know before believing them."""
    outcome = told.outcome
    console.print(
        f"[bold]{escape(outcome.machine.name)}[/] ({escape(str(outcome.task.output))}): {escape(outcome.machine.description)}"
    )
    console.print(table("Measured", NUMBER_COLUMNS, _numbers(told)))
    if told.levels:
        console.print(table("Messages between two ranks", LEVEL_COLUMNS, _levels(told)))
    if told.checks:
        columns = COLLECTIVE_COLUMNS + (NOMINAL_COLUMNS if outcome.task.like else ())
        console.print(table("Collectives", columns, _collectives(told)))
        console.print(table("Median errors", BAND_COLUMNS, _bands(told)))
    for line in _verdicts(told):
        console.print(line, markup=False)
    for warning in outcome.calibrated.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


@all_or_nothing
def write_calibration(folder: Folder, told: Told, command: str) -> None:
    """Write ``calibration.json``, ``points.csv``, plots and ``report.html``."""
    import pandas as pd

    outcome = told.outcome
    folder.json("calibration.json", told.whole())
    rows = [
        {key: value for key, value in each.plain().items() if key not in ("detail", "seconds", "reasons")}
        | {"accepted": len(each.used), "samples": len(each.seconds), "rejected": sum(each.rejected.values())}
        for each in told.findings.series
    ]
    folder.frame("points.csv", pd.DataFrame(rows))
    sections = [
        *_message_sections(folder, told),
        *_collective_sections(folder, told),
        *_product_sections(folder, told),
        Section("Measured", "", NUMBER_COLUMNS, list(_numbers(told))),
        machine_section(outcome.machine),
    ]
    lead = f"{' '.join(_verdicts(told))} {outcome.machine.description}; {outcome.job['library']}.".lstrip()
    write_report(folder, f"Calibration: {outcome.machine.name}", lead, sections, [command], outcome.calibrated.warnings)


def _message_sections(folder: Folder, told: Told) -> Iterable[Section]:
    if told.levels:
        drawn = folder.figure("ping_pong", plots.ping_pong(told.findings.pairs))
        picture = Picture(
            drawn, "One way of a message between two ranks, by where these are: measured (points) and fitted."
        )
        yield Section("Messages between two ranks", MEASURED, LEVEL_COLUMNS, list(_levels(told)), figures=[picture])


def _collective_sections(folder: Folder, told: Told) -> Iterable[Section]:
    if not told.checks:
        return
    pictures = [
        Picture(
            folder.figure(f"collectives_{number}", plots.collectives(name, members)),
            f"{name}: measured (filled: fitted, hollow: held out), the fit (line).",
        )
        for number, (name, members) in enumerate(by_group(told.findings.collectives).items(), start=1)
    ]
    residuals = folder.figure("residuals", plots.errors(told.checks, ("fitted",), "Errors of the fits"))
    pictures.append(Picture(residuals, "Relative errors of the fits; hollow: sizes that were held out."))
    sides = ("nominal", "calibrated") if told.outcome.task.like else ("calibrated",)
    drawn = folder.figure("simulated", plots.errors(told.checks, sides, "Errors of simulations"))
    pictures.append(
        Picture(
            drawn,
            f"Each measured collective simulated: relative errors, those above {plots.MOST_ERROR:+.0%} drawn there.",
        )
    )
    columns = COLLECTIVE_COLUMNS + (NOMINAL_COLUMNS if told.outcome.task.like else ())
    yield Section("Collectives", " ".join(_verdicts(told)), columns, list(_collectives(told)), figures=pictures)
    yield Section("Median errors of collectives by size", "", BAND_COLUMNS, list(_bands(told)))


def _product_sections(folder: Folder, told: Told) -> Iterable[Section]:
    if told.products:
        drawn = folder.figure("products", plots.products(told.products))
        picture = Picture(drawn, "Rates of products on all ranks at once: measured, and by the machine's model.")
        rows = [
            (
                f"{each['m']} x {each['n']} x {each['k']} {each['precision']}",
                si(each["seconds"], "s"),
                si(2 * each["m"] * each["n"] * each["k"] / each["seconds"], "FLOP/s"),
                si(each["modelled_seconds"], "s"),
                percent(each["relative_error"]),
            )
            for each in told.products
        ]
        text = "Caches are warm: each product runs again and again on the same matrices."
        yield Section("Products (m x n x k)", text, PRODUCT_COLUMNS, rows, figures=[picture])


def by_group(fits: Sequence[FittedNumber]) -> dict[str, list[FittedNumber]]:
    """Collectives by operation and number of ranks."""
    found: dict[str, list[FittedNumber]] = {}
    for each in fits:
        if each.detail["operation"] != "barrier":
            found.setdefault(f"{each.detail['operation']} of {each.detail['ranks']} ranks", []).append(each)
    return found


def _numbers(told: Told) -> Iterable[tuple[str, ...]]:
    yield from told.numbers


def _levels(told: Told) -> Iterable[tuple[str, ...]]:
    for fitted, latency, library, rate in told.levels:
        shown = [si(found.value, found.unit) if found else "" for found in (latency, library, rate)]
        errors = abs(fitted.errors(False))
        yield fitted.name, *shown, describe(fitted.curve), f"{sorted(errors)[len(errors) // 2]:.1%}"


def describe(curve: Curve) -> str:
    """A curve in words: its start and rate, and those from each break on."""
    parts = [
        f"{si(piece.start, 's', 3)} + n / {si(piece.rate, 'B/s', 3)}" if piece.slope else si(piece.start, "s", 3)
        for piece in curve.pieces
    ]
    breaks = ["", *(f", from {si(size, 'B', 3)} on " for size in curve.breaks)]
    return "".join(f"{at}{part}" for at, part in zip(breaks, parts, strict=True))


def _collectives(told: Told) -> Iterable[tuple[str, ...]]:
    by_name: dict[str, list[CollectiveCheck]] = {}
    for check in told.checks:
        by_name.setdefault(check.name, []).append(check)
    for fitted in told.findings.collectives:
        checks = by_name.get(fitted.name, [])
        held = CollectiveErrors.of((check for check in checks if check.held_out), "fitted")
        ours, theirs = CollectiveErrors.of(checks, "calibrated"), CollectiveErrors.of(checks, "nominal")
        row = [fitted.name, describe(fitted.curve)]
        row += [f"{held.median:.1%}", f"{held.worst:.1%}"] if held else ["", ""]
        row += [percent(ours.signed), f"{ours.median:.1%}", f"{ours.worst:.1%}"] if ours else ["", "", ""]
        row += [percent(theirs.signed), f"{theirs.median:.1%}"] if theirs else []
        yield tuple(row)


def _bands(told: Told) -> Iterable[tuple[str, ...]]:
    for name, checks in [*told.bands, ("all", told.checks)]:
        held = CollectiveErrors.of((check for check in checks if check.held_out), "fitted")
        sides = [held, CollectiveErrors.of(checks, "nominal"), CollectiveErrors.of(checks, "calibrated")]
        if checks:
            yield name, f"{len(checks)}", *(f"{errors.median:.1%}" if errors else "" for errors in sides)


def _verdicts(told: Told) -> Iterable[str]:
    """The errors in a line each."""
    sides = (
        (told.held_out, "The collectives' fits on sizes held out of them"),
        (told.errors("nominal"), "Collectives simulated on the nominal machine"),
        (told.errors("calibrated"), "Collectives simulated on the calibrated machine"),
    )
    for errors, what in sides:
        if errors:
            yield (
                f"{what}: median error {errors.median:.1%} (signed {percent(errors.signed)}), worst {errors.worst:.1%}"
                f" ({errors.where}), {errors.points} points."
            )
