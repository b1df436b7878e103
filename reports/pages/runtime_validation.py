"""The validation study as tables, plots, files and a report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ...hardware.units import si
from ..plots.plots import INK, SERIES
from ..studies.runtime_validation import RuntimeOutcome, Validation
from ..tables.runs import percent, table
from .html_page import Picture, Section, write_report
from .output_folder import Folder

if TYPE_CHECKING:
    from rich.console import Console

JUDGED = ("prediction", "cells", "MAPE", "worst", "bias", "rank correlation")
CELLS = ("tree", "placement", "balancer", "skew", "compute", "measured", "variation", "nominal rates", "calibrated")
PHASES = ("prediction", "forward", "backward", "update")
NAMES = {
    "zero_fit": "nominal rates, nothing fitted",
    "calibrated": "calibrated in another job",
    "calibrated_gemm": "calibrated, computing for real",
}
MARKS = {("moda", "none"): "o", ("moda", "swipe"): "s", ("opposite", "none"): "^", ("opposite", "swipe"): "D"}
AIM = 0.08
"""The mean error that the study aims for from nominal rates, drawn as a band."""


def judged_rows(plain: dict[str, Any]) -> list[tuple[str, ...]]:
    """How good the predictions are, all cells together."""
    rows: list[tuple[str, ...]] = []
    for key, name in NAMES.items():
        if (found := plain[key]) is not None:
            errors = (f"{found['mape']:.1%}", f"{found['worst']:.1%}", percent(found["bias"]))
            rows.append((name, str(found["cells"]), *errors, _number(found["rank_correlation"])))
    return rows


def cell_rows(plain: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each cell."""
    return [
        (
            cell["tree"],
            cell["placement"],
            cell["balancer"],
            f"{cell['skew']:g}",
            cell["compute"],
            si(cell["measured_seconds"], "s"),
            f"{cell['measured_variation']:.1%}",
            *(percent(cell[kind]["relative_error"]) for kind in ("zero_fit", "calibrated")),
        )
        for cell in plain["cells"]
    ]


def phase_rows(found: Validation) -> list[tuple[str, ...]]:
    """The mean size of the errors by phase, over the cells in which ranks sleep."""
    rows = []
    for key, name in list(NAMES.items())[:2]:
        pairs = [each.nominal if key == "zero_fit" else each.calibrated for each in found.of("sleep")]
        errors: dict[str, list[float]] = {}
        for pair in pairs:
            for row in pair.phases:
                errors.setdefault(row.name, []).append(abs(row.relative_error or 0.0))
        rows.append((name, *(f"{np.mean(errors[phase]):.1%}" for phase in PHASES[1:])))
    return rows


def show_validation(console: Console, found: Validation) -> None:
    """The study on the terminal."""
    plain = found.plain()
    console.print(table("Steps on emulated clusters, predicted and measured", CELLS, cell_rows(plain), text_columns=5))
    console.print(table("Errors of the step", JUDGED, judged_rows(plain)))
    console.print(table("Mean size of errors by phase (virtual accelerators)", PHASES, phase_rows(found)))
    console.print(_ratios(plain))


def _ratios(plain: dict[str, Any]) -> str:
    by_tree = ", ".join(f"{name}: {ratio:.4f}" for name, ratio in plain["cross_over_inside_by_tree"].items())
    ranks = ", ".join(f"{name}: {_number(each)}" for name, each in plain["rank_correlation_by_tree"].items())
    return (
        f"Bandwidth across supernodes over that inside, all nodes sending (3/16 = 0.1875): {by_tree}."
        f" Rank correlation of plans on each tree, from nominal rates: {ranks}."
    )


def write_validation(folder: Folder, found: Validation, command: str) -> None:
    """Write ``validation.json``, ``cells.csv``, plots and ``report.html``."""
    import pandas as pd

    plain = found.plain()
    folder.json("validation.json", plain)
    folder.frame("cells.csv", pd.json_normalize(plain["cells"]))
    step = folder.figure("validation", predicted_against_measured(found))
    errors = folder.figure("validation_errors", errors_of_cells(found.of("sleep")))
    sections = [
        Section(
            "Step time",
            _ratios(plain),
            JUDGED,
            judged_rows(plain),
            figures=[
                Picture(step, "Each mark is a plan on a tree. The band is ±8 %."),
                Picture(
                    errors,
                    "Error of each plan's step, cells with virtual accelerators in the order of the table below.",
                ),
            ],
        ),
        Section("By phase", "Mean size of the errors of exposed seconds.", PHASES, phase_rows(found)),
        Section(
            "Cells",
            "Variation is the standard deviation of a cell's steps over their mean.",
            CELLS,
            cell_rows(plain),
            5,
        ),
    ]
    lead = (
        "Training steps of a small mixture-of-experts model over MPI on emulated pruned fat trees (real TCP, namespaces of one"
        " computer), beside what the simulator says of them."
    )
    write_report(folder, "Validation of the simulator on emulated clusters", lead, sections, [command], [])


def predicted_against_measured(found: Validation) -> Figure:
    """Predicted against measured step times, from nominal rates and calibrated."""
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    outcomes = found.outcomes
    times = [each.nominal.step.measured for each in outcomes] + [each.nominal.step.predicted for each in outcomes]
    low, high = 0.85 * min(times), 1.15 * max(times)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    trees = list(dict.fromkeys(each.cell.tree.name for each in outcomes))
    for axes, kind in zip(panels, ("zero_fit", "calibrated"), strict=True):
        line = np.array([low, high])
        axes.fill_between(line, line * (1 - AIM), line * (1 + AIM), color=INK, alpha=0.08, lw=0)
        axes.plot(line, line, color=INK, lw=0.8)
        for each in outcomes:
            pair = each.nominal if kind == "zero_fit" else each.calibrated
            axes.plot(
                pair.step.measured,
                pair.step.predicted,
                MARKS[each.cell.placement, each.cell.balancer],
                color=SERIES[trees.index(each.cell.tree.name) % len(SERIES)],
                fillstyle="none" if each.cell.compute == "gemm" else "full",
                ms=6,
                alpha=0.85,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(NAMES[kind], loc="left", fontsize=10)
        axes.set_xlabel("measured step (s)")
        _plain_ticks(axes, low, high)
    panels[0].set_ylabel("predicted step (s)")
    _legend(figure, trees, any(each.cell.compute == "gemm" for each in outcomes))
    return figure


def _plain_ticks(axes: Any, low: float, high: float) -> None:
    """Ticks at round seconds, written plainly."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20) if low <= tick <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)


def _legend(figure: Figure, trees: Iterable[str], computed: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", ls="", color=SERIES[number % len(SERIES)], label=name)
        for number, name in enumerate(trees)
    ]
    handles += [
        Line2D([], [], marker=mark, ls="", color=INK, alpha=0.6, label=f"placement {placement}, balancer {balancer}")
        for (placement, balancer), mark in MARKS.items()
    ]
    if computed:
        handles.append(
            Line2D([], [], marker="o", ls="", color=INK, fillstyle="none", label="hollow: computes for real")
        )
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)


def errors_of_cells(outcomes: list[RuntimeOutcome]) -> Figure:
    """Signed errors of the step, cell by cell, beside the variation of the measured steps."""
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(outcomes))
    spread = np.array([100 * (each.nominal.step.variation or 0.0) for each in outcomes])
    axes.bar(
        places, 2 * spread, bottom=-spread, width=0.9, color=INK, alpha=0.12, label="variation of measured steps (± σ)"
    )
    for shift, kind, name in ((-0.2, "nominal", "nominal rates"), (0.2, "calibrated", "calibrated")):
        errors = [100 * (getattr(each, kind).step.relative_error or 0.0) for each in outcomes]
        axes.bar(places + shift, errors, width=0.4, color=SERIES[kind == "calibrated"], label=name)
    axes.axhline(0, color=INK, lw=0.8)
    trees = [each.cell.tree.name for each in outcomes]
    for tree in dict.fromkeys(trees):
        first, count = trees.index(tree), trees.count(tree)
        axes.axvline(first - 0.5, color=INK, lw=0.5, alpha=0.5)
        axes.text(first + count / 2 - 0.5, 1.01, tree, ha="center", va="bottom", transform=axes.get_xaxis_transform())
    axes.set_xlim(-0.5, len(outcomes) - 0.5)
    axes.set_xticks(places, [_short(each) for each in outcomes], rotation=90, fontsize=7)
    axes.set_ylabel("error of the step (%)")
    axes.legend(frameon=False, fontsize=8, loc="best")
    return figure


def _short(outcome: RuntimeOutcome) -> str:
    cell = outcome.cell
    return f"{cell.placement} {cell.balancer} {cell.skew:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
