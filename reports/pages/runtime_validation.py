"""The validation study as tables, plots, files and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...hardware.units import si
from ..content.sections import Picture, Section
from ..content.words import percent
from ..plots.runtime_validation import NAMES, errors_of_cells, predicted_against_measured
from ..studies.runtime_validation import Validation
from ..tables.runs import table
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from rich.console import Console

JUDGED = ("prediction", "cells", "MAPE", "worst", "bias", "rank correlation")
CELLS = ("tree", "placement", "balancer", "skew", "compute", "measured", "variation", "nominal rates", "calibrated")
GROUPED = ("cells with", "cells", "nominal MAPE", "worst", "calibrated MAPE", "worst")
PHASES = ("prediction", "forward", "backward", "update")


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
            cell.get("placement", cell.get("plan", "")),  # of a dense plan its name
            cell.get("balancer", ""),
            f"{cell['skew']:g}" if "router" in cell else "",
            cell["compute"],
            si(cell["measured_seconds"], "s"),
            f"{cell['measured_variation']:.1%}",
            *(percent(cell[kind]["relative_error"]) for kind in ("zero_fit", "calibrated")),
        )
        for cell in plain["cells"]
    ]


def grouped_rows(plain: dict[str, Any]) -> list[tuple[str, ...]]:
    """How good the predictions are by plan, rate, ranks and taper, where there are several."""
    rows: list[tuple[str, ...]] = []
    for name, values in plain.get("by", {}).items():
        for value, sides in values.items() if len(values) > 1 else ():
            errors = [f"{sides[side][key]:.1%}" for side in ("zero_fit", "calibrated") for key in ("mape", "worst")]
            rows.append((f"{name} {value}", str(sides["calibrated"]["cells"]), *errors))
    return rows


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
    if rows := grouped_rows(plain):
        console.print(table("Errors of the step, cells told apart", GROUPED, rows))
    console.print(table("Mean size of errors by phase (virtual accelerators)", PHASES, phase_rows(found)))
    console.print(_ratios(plain), markup=False)


def _ratios(plain: dict[str, Any]) -> str:
    by_tree = ", ".join(f"{name}: {ratio:.4f}" for name, ratio in plain["cross_over_inside_by_tree"].items())
    ranks = ", ".join(f"{name}: {_number(each)}" for name, each in plain["rank_correlation_by_tree"].items())
    return (
        f"Bandwidth across supernodes over that inside, all nodes sending (3/16 = 0.1875): {by_tree}."
        f" Rank correlation of plans on each tree, from nominal rates: {ranks}."
    )


@all_or_nothing
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
        Section("By plan and tree", "Errors of the step.", GROUPED, grouped_rows(plain)),
        Section("By phase", "Mean size of the errors of exposed seconds.", PHASES, phase_rows(found)),
        Section(
            "Cells",
            "Variation is the standard deviation of a cell's steps over their mean.",
            CELLS,
            cell_rows(plain),
            5,
        ),
    ]
    plain_errors = "; ".join(f"{row[0]}: mean error {row[2]}, worst {row[3]}" for row in judged_rows(plain))
    lead = (
        f"Errors of the step. {plain_errors[0].upper()}{plain_errors[1:]}. "
        "Training steps of a small mixture-of-experts model over MPI on emulated pruned fat trees (real TCP, namespaces of one"
        " computer), beside what the simulator says of them."
    )
    write_report(folder, "Validation of the simulator on emulated clusters", lead, sections, [command], [])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
