"""What is shown and written of an accelerator's calibration: its numbers, and how far the model is from what was held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...hardware.units import si
from ...mpi_runtime.accelerator.calibrate import AcceleratorOutcome
from ...mpi_runtime.accelerator.fit import UNFELT, HeldOutCheck, JudgedFit, counts, kind_of
from ..tables.runs import percent, table
from .output_folder import Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "athanor-accelerator/1"

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

NAMES = {
    "read": "core_group.dma_read",
    "written": "core_group.dma_write",
    "overhead": "core_group.operator_overhead",
    "fill": "core_group.tiles.fill",
    "cache": "core_group.tiles.cache_bandwidth",
    "attention": "core_group.tiles.attention",
}
"""What the fit calls its constants, and where they stand in the machine file; efficiencies of precisions stand apart."""


def show_accelerator(console: Console, outcome: AcceleratorOutcome) -> None:
    """Numbers, errors by operator and precision, and what to know before believing them."""
    machine = outcome.machine
    console.print(f"[bold]{machine.name}[/] ({outcome.task.output}): {machine.description}")
    console.print(table("Measured and fitted", NUMBER_COLUMNS, _numbers(outcome)))
    console.print(table("The compute model's errors", ERROR_COLUMNS, _errors(outcome), 2, caption=BEYOND))
    console.print(verdict(outcome))
    for warning in outcome.warnings:
        console.print(f"[yellow]warning:[/] {warning}")


def write_accelerator(folder: Folder, outcome: AcceleratorOutcome, command: str) -> None:
    """Write ``accelerator.json``, ``points.csv``, the plot ``predicted`` and ``report.html``."""
    import pandas as pd

    from .html_page import Picture, Section, machine_section, write_report

    whole = plain(outcome) | {"checks": [_check(each) for each in outcome.checks]}
    folder.json("accelerator.json", whole)
    folder.frame("points.csv", pd.DataFrame(whole["checks"]))
    drawn = folder.figure("predicted", _plot(outcome.checks))
    picture = Picture(
        drawn, "Seconds of every point: measured, and by the model; hollow points were held out of the fit."
    )
    sections = [
        Section("Measured and fitted", "", NUMBER_COLUMNS, list(_numbers(outcome))),
        Section("The compute model's errors", BEYOND, ERROR_COLUMNS, list(_errors(outcome)), 2, [picture]),
        machine_section(outcome.machine),
    ]
    title = f"Calibration of an accelerator: {outcome.machine.name}"
    write_report(folder, title, verdict(outcome), sections, [command], outcome.warnings)


def plain(outcome: AcceleratorOutcome) -> dict[str, Any]:
    """The calibration as plain data, without its points."""
    fit, measured, task = outcome.fit, outcome.measured, outcome.task
    return {
        "format": FORMAT,
        "machine": outcome.machine.name,
        "file": str(task.output),
        "like": task.like.name if task.like else None,
        **outcome.about,
        "quick": task.quick,
        "seconds": task.budget,
        "samples_file": str(task.samples_file),
        "points": len(measured.series),
        "points_kept_from_before": measured.resumed,
        "left_out": dict(measured.left_out),
        "tiles": [list(shape) for shape in fit.constants.shapes],
        "constants": {
            key: {"value": value, "relative_standard_error": _finite(fit.errors[name])}
            for name, key, value, _ in _constants(outcome)
        },
        "errors": {half: _plain(judged(outcome.checks, half)) for half in HALVES},
        "errors_by_operator": [
            {
                "operator": kind,
                "precision": precision,
                **{half: _plain(judged(held, half, lambda _: True)) for half in HALVES},
            }
            for (kind, precision), held in _groups(outcome.checks).items()
        ],
        "warnings": list(outcome.warnings),
    }


HALVES = ("fitted", "held_out")


def judged(
    checks: Iterable[HeldOutCheck], half: str, wanted: Callable[[HeldOutCheck], bool] | None = None
) -> JudgedFit | None:
    """Errors of one half of the points, of those that the model claims to know where nothing else is wanted."""
    told = wanted or (lambda check: counts(check.point))
    return JudgedFit.of(check for check in checks if check.point.held_out == (half == "held_out") and told(check))


def verdict(outcome: AcceleratorOutcome) -> str:
    """The errors in one line."""
    held, fitted = judged(outcome.checks, "held_out"), judged(outcome.checks, "fitted")
    if held is None or fitted is None:
        return "Nothing that was measured could be held out."
    return (
        f"Held out of the fit: {held.points} points, mean error {held.mape:.1%} ({held.by_time:.1%} weighted by their"
        f" seconds), median {held.median:.1%}, worst {percent(held.worst)} ({held.where}); the {fitted.points} that were"
        f" fitted to: {fitted.mape:.1%}."
    )


def _constants(outcome: AcceleratorOutcome) -> Iterator[tuple[str, str, float, str]]:
    """(name in the fit, key of the machine, value, value as text) of what was fitted."""
    fit, texts = outcome.fit, {key: text for key, text, _ in outcome.machine.numbers()}
    found, group = fit.constants, outcome.machine.core_group
    for name in fit.errors:
        kind = name.partition(".")[2]
        if kind:
            share = next(share for known, share in found.efficiency.items() if kind in (known, "all"))
            key = "calibration.gemm_efficiency" + (f" of {kind}" if kind != "all" else "")
            yield name, key, share, f"{share:.4g}"
        else:
            value = getattr(found, name)
            rate = si(value, "B/s") if name in ("read", "written") else ""
            shown = texts[NAMES[name]] + (f" of {si(group.memory_bandwidth, 'B/s')}, {rate}" if rate else "")
            yield name, NAMES[name], value, shown


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
    for name, key, _, text in _constants(outcome):
        yield key, text, outcome.fit.certainty(name)


def _errors(outcome: AcceleratorOutcome) -> Iterator[tuple[str, ...]]:
    for (kind, precision), checks in _groups(outcome.checks).items():
        yield (kind, precision, *_row(checks, lambda _: True))
    yield ("all that count", "", *_row(outcome.checks, None))


def _row(checks: Iterable[HeldOutCheck], wanted: Callable[[HeldOutCheck], bool] | None) -> list[str]:
    held, fitted = (judged(list(checks), half, wanted) for half in ("held_out", "fitted"))
    row = [""] * 6
    if held:
        sizes = [f"{size:.1%}" for size in (held.mape, held.median)]
        row = [str(held.points), *sizes, percent(held.worst), percent(held.bias), f"{held.by_time:.1%}"]
    return [*row, f"{fitted.mape:.1%}" if fitted else ""]


def _groups(checks: Iterable[HeldOutCheck]) -> dict[tuple[str, str], list[HeldOutCheck]]:
    """Points by operator and precision, products first."""
    found: dict[tuple[str, str], list[HeldOutCheck]] = {}
    for check in checks:
        found.setdefault((kind_of(check.point), check.point.detail.get("precision", "")), []).append(check)
    order = ("products", "attention", "memory", "starts")
    place = {name: number for number, name in enumerate(order)}
    return dict(
        sorted(found.items(), key=lambda item: (place[item[0][0].partition(",")[0].partition("-")[0]], item[0]))
    )


def _check(check: HeldOutCheck) -> dict[str, Any]:
    return {
        "operator": kind_of(check.point),
        "name": check.point.series,
        "precision": check.point.detail.get("precision", ""),
        "held_out": check.point.held_out,
        "counts": counts(check.point),
        "measured_seconds": check.measured,
        "predicted_seconds": check.predicted,
        "relative_error": check.error,
    }


def _plain(found: JudgedFit | None) -> Mapping[str, Any] | None:
    return found.plain() if found else None


def _finite(error: float) -> float | None:
    return error if error < UNFELT else None


def _plot(checks: Iterable[HeldOutCheck]) -> Figure:
    """Predicted over measured seconds, operators in colour, with the diagonal and 10 % on either side of it."""
    from ..plots.plots import INK, MARKERS, SERIES, blank, legend_beside

    figure, axes = blank(width=8.0, height=6.0)
    told = [check for check in checks if check.point.kind != "start"]
    kinds = list(dict.fromkeys(kind_of(check.point).partition(",")[0] for check in told))
    for place, kind in enumerate(kinds):
        for held_out in (False, True):
            mine = [
                c
                for c in told
                if kind_of(c.point).startswith(kind) and c.point.held_out == held_out and counts(c.point)
            ]
            colour = SERIES[place % len(SERIES)]
            axes.plot(
                [check.measured for check in mine],
                [check.predicted for check in mine],
                MARKERS[place % len(MARKERS)],
                color=colour,
                mfc="none" if held_out else colour,
                ms=4,
                label=f"{kind}, held out" if held_out else kind,
            )
    ends = [min(c.measured for c in told), max(c.measured for c in told)]
    axes.plot(ends, ends, color=INK, lw=1)
    for factor in (0.9, 1.1):
        axes.plot(ends, [factor * end for end in ends], "--", color=INK, lw=0.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("measured seconds")
    axes.set_ylabel("seconds by the model")
    axes.set_title("Operators on one accelerator", loc="left", fontsize=11)
    legend_beside(axes)
    return figure
