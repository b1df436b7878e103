"""What is shown and written of a comparison: tables on the terminal, JSON, CSV, plots and the HTML report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape

from ...hardware.units import si
from ...workloads.mesh.mesh_text import mesh_text
from ..content.sections import Picture, Section
from ..content.words import percent, shown
from ..studies.comparison.compare import Comparison, Pair, over_pairs
from ..studies.comparison.rows import ComparisonRow, Errors, OperationRow
from ..tables.runs import table
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

TIME_COLUMNS = ("", "", "predicted", "measured", "error", "steps vary by")
OPERATION_COLUMNS = ("operation", "ranks", "predicted", "measured", "error", "steps vary by")
ERROR_COLUMNS = ("over", "worst", "mean error", "MAPE", "worst error", "rows")
TRAFFIC_COLUMNS = ("collective of operation", "", "predicted", "measured", "error")
LOAD_COLUMNS = ("load", "predicted", "measured")
LINK_COLUMNS = (
    "kind",
    "bytes predicted",
    "measured",
    "mean use predicted",
    "measured",
    "most used predicted",
    "measured",
)
PAIR_COLUMNS = ("pair", "constants", "predicted", "measured", "error", "steps vary by", "forward", "backward", "update")
GROUP_COLUMNS = ("over pairs", "worst", "pairs", "mean error", "MAPE", "worst error", "rank correlation")
OVER = {
    "operations": "operations, each counting the same",
    "operations_by_time": "operations, by measured time",
    "phases": "phases",
}
GROUPS = {"kinds": "kind", "axes": "axes", "levels": "level"}
SHOWN = 12
"""Operations on the terminal; the report has all."""


def show_comparison(console: Console, found: Comparison) -> None:
    """One pair in full; of several, a row each and their errors together."""
    if len(found.pairs) == 1:
        _show_pair(console, found.pairs[0])
        return
    console.print(table("Steps", PAIR_COLUMNS, map(_pair_row, found.pairs), text_columns=2))
    console.print(table("Errors of the step", GROUP_COLUMNS, _group_rows(found), text_columns=2))
    for pair in found.pairs:
        console.print(f"{escape(pair.name)}: {escape(_basis(pair))}")
        for note in pair.notes:
            console.print(f"  [yellow]note:[/] {escape(note)}")


def _show_pair(console: Console, pair: Pair) -> None:
    console.print(f"[bold]{escape(_lead(pair))}[/]")
    console.print(escape(_basis(pair)))
    for note in pair.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    console.print(table("Seconds a step", TIME_COLUMNS, _times(pair), text_columns=2))
    largest = sorted(pair.operations, key=lambda row: -row.seconds.measured)[:SHOWN]
    title = f"Operations, summed over layers: {len(largest)} of {len(pair.operations)}, most measured seconds first"
    console.print(table(title, OPERATION_COLUMNS, _operations(largest), text_columns=2))
    console.print(table("Errors", ERROR_COLUMNS, _errors(pair), text_columns=2))
    console.print(table("Bytes a rank and step", TRAFFIC_COLUMNS, _traffic(pair), text_columns=2))
    console.print(table("Load of experts", LOAD_COLUMNS, _load(pair)))
    if pair.links:
        console.print(table("Links", LINK_COLUMNS, _links(pair)))


@all_or_nothing
def write_comparison(folder: Folder, found: Comparison, command: str) -> None:
    """Write ``comparison.json``, ``operations.csv``, plots and ``report.html``; with several pairs their plots bear numbers."""
    import pandas as pd

    from ..plots import comparison as plots

    folder.json("comparison.json", found.plain())
    folder.frame("operations.csv", pd.DataFrame([line for pair in found.pairs for line in _lines(pair)]))
    sections: list[Section] = []
    several = len(found.pairs) > 1
    if several:
        drawn = folder.figure("steps", plots.steps(found.pairs))
        picture = Picture(drawn, "Step of each configuration, predicted against measured.")
        sections.append(Section("Configurations", "", PAIR_COLUMNS, [*map(_pair_row, found.pairs)], 2, [picture]))
        sections.append(Section("Errors over configurations", GROUP_TEXT, GROUP_COLUMNS, [*_group_rows(found)], 2))
    for number, pair in enumerate(found.pairs, 1):
        sections += _pair_sections(folder, pair, f"_{number}" if several else "")
    names = list(dict.fromkeys(f"{pair.totals[0].model} on {pair.totals[1].machine}" for pair in found.pairs))
    title = f"Predicted against measured: {', '.join(names)}"
    lead = _lead(found.pairs[0]) if not several else f"{len(found.pairs)} configurations."
    notes = [f"{pair.name}: {note}" if several else note for pair in found.pairs for note in pair.notes]
    write_report(folder, title, lead, sections, [command], notes)


GROUP_TEXT = (
    "Predictions that rest on nominal values alone (zero-fit) and those with fitted or calibrated constants are never"
    " averaged together. Rank correlation is Spearman's, of predicted and measured steps: 1 where the prediction orders the"
    " configurations as they really are."
)
TIME_TEXT = (
    "Phases and categories are exposed seconds, means over all ranks, with waiting for slower ranks (imbalance). Kinds,"
    " axes and levels are sums of operations from start to end on the compared ranks: a collective starts when the last of"
    " its group has come, so waiting for slower ranks is not in them. Error: (predicted - measured) / measured. Steps vary"
    " by: standard deviation of the measured steps over their mean."
)
TIMELINE_TEXT = (
    "The step of median length on the same rank. Gaps on the compute stream are waiting: for communication, or for slower"
    " ranks."
)


def _pair_sections(folder: Folder, pair: Pair, suffix: str) -> list[Section]:
    """All sections of a pair, with its plots."""
    from ..plots import comparison as plots

    def title(text: str) -> str:
        return f"{pair.name}: {text}" if suffix else text.capitalize()

    lanes = Picture(folder.figure(f"timelines{suffix}", plots.timelines(pair)), TIMELINE_TEXT)
    bars = Picture(
        folder.figure(f"errors{suffix}", plots.errors(pair)),
        "Relative errors, and as whiskers about zero the measured steps' own variation: a bar that ends within its whisker is"
        " no more off than the steps are from each other.",
    )
    dots = Picture(
        folder.figure(f"operations{suffix}", plots.operations(pair)),
        "Each operation, summed over layers; the named are most seconds off.",
    )
    conditions = [(key, _value(value)) for key, value in (pair.totals[1].measured or {}).items()]
    sections = [
        Section(title("timelines"), figures=[lanes]),
        Section(title("times"), f"{_lead(pair)} {_basis(pair)} {TIME_TEXT}", TIME_COLUMNS, [*_times(pair)], 2, [bars]),
        Section(title("errors together"), "", ERROR_COLUMNS, [*_errors(pair)], 2),
        Section(
            title("operations"), "Summed over layers.", OPERATION_COLUMNS, [*_operations(pair.operations)], 2, [dots]
        ),
        Section(title("bytes of collectives, a rank and step"), "", TRAFFIC_COLUMNS, [*_traffic(pair)], 2),
        Section(title("load of experts"), "", LOAD_COLUMNS, [*_load(pair)]),
        Section(title("compared ranks"), "", ("predicted", "measured"), [*_ranks(pair)], 2),
    ]
    if pair.links:
        sections.append(Section(title("links"), "", LINK_COLUMNS, [*_links(pair)]))
    options = [
        (key, *("" if plan.get(key) is None else _value(plan[key]) for plan in pair.plans))
        for key in dict.fromkeys((*pair.plans[0], *pair.plans[1]))
        if any(plan.get(key) is not None for plan in pair.plans)
    ]
    sections.append(Section(title("plan"), "", ("option", "predicted", "measured"), options, 3))
    if conditions:
        sections.append(Section(title("how it was measured"), "", ("key", "value"), conditions, 2))
    return sections


def _lead(pair: Pair) -> str:
    """One line on what was compared, and the step's error."""
    predicted = pair.totals[0]
    vary = f" (steps vary by {_share(pair.step.variation)})" if pair.step.variation is not None else ""
    return (
        f"{predicted.model}, {predicted.ranks:,} ranks ({mesh_text(predicted.mesh)}):"
        f" step predicted {si(pair.step.predicted, 's')}, measured {si(pair.step.measured, 's')}: {_error(pair.step)}{vary}."
    )


def _basis(pair: Pair) -> str:
    """What the prediction rests on."""
    if not pair.fitted:
        return "Zero-fit: no constant of the machine was fitted or calibrated."
    return f"Fitted: the prediction rests on {', '.join(pair.fitted)}."


def _times(pair: Pair) -> Iterator[tuple[str, ...]]:
    yield ("step", "", *_cells(pair.step))
    named = {
        "phase": pair.phases,
        "category": pair.categories,
        **{GROUPS[key]: rows for key, rows in pair.groups.items()},
    }
    for what, rows in named.items():
        for place, row in enumerate(rows):
            yield ("" if place else what, row.name, *_cells(row))


def _operations(rows: Iterable[OperationRow]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        yield (row.name, row.match.label, *_cells(row.seconds))


def _cells(row: ComparisonRow, unit: str = "s") -> tuple[str, str, str, str]:
    return si(row.predicted, unit), si(row.measured, unit), _error(row), _share(row.variation)


def _errors(pair: Pair) -> Iterator[tuple[str, ...]]:
    for name, found in pair.errors.items():
        yield (OVER[name], *_error_cells(found), f"{found.count}")


def _error_cells(found: Errors) -> tuple[str, str, str, str]:
    worst, error = found.worst or ("", None)
    return worst, _signed(found.bias), _share(found.mape), _signed(error)


def _pair_row(pair: Pair) -> tuple[str, ...]:
    errors = {row.name: _error(row) for row in pair.phases}
    phases = (errors.get(phase, "-") for phase in ("forward", "backward", "update"))
    return (pair.name, "fitted" if pair.fitted else "zero-fit", *_cells(pair.step), *phases)


def _group_rows(found: Comparison) -> Iterator[tuple[str, ...]]:
    for name, fitted in (("zero-fit", False), ("fitted", True)):
        if pairs := found.group(fitted):
            plain = over_pairs(pairs)
            order = plain["rank_correlation"]
            worst = plain["worst"]
            yield (
                (name, worst["name"], f"{len(pairs)}", _signed(plain["bias"]), _share(plain["mape"]))
                + (_signed(worst["relative_error"]), "-" if order is None else f"{order:.3f}")
            )


def _traffic(pair: Pair) -> Iterator[tuple[str, ...]]:
    for label, row in pair.labelled:
        if row.what.collective:
            yield (label, f"{row.what.collective} over {row.what.axes}", *_cells(row.nbytes, "B")[:3])


def _load(pair: Pair) -> Iterator[tuple[str, str, str]]:
    ours, theirs = (totals.load_balance for totals in pair.totals)
    for key in ours:
        if key in theirs:
            shown = _share if key.endswith("fraction") else "{:.3f}".format
            yield key.replace("_", " "), shown(ours[key]), shown(theirs[key])


def _links(pair: Pair) -> Iterator[tuple[str, ...]]:
    for row in pair.links:
        bytes_, mean, most = (
            [row[f"{side}_{key}"] for side in ("predicted", "measured")]
            for key in ("bytes_per_step", "mean_utilisation", "max_utilisation")
        )
        sent = ["-" if value is None else si(value, "B") for value in bytes_]
        yield (row["kind"], *sent, *map(_share, mean), *map(_share, most))


def _ranks(pair: Pair) -> Iterator[tuple[str, str]]:
    for match in pair.matched:
        yield (
            match.label,
            ", ".join(match.measured[:8]) + (f" and {len(match.measured) - 8} more" if len(match.measured) > 8 else ""),
        )


def _lines(pair: Pair) -> Iterator[dict[str, Any]]:
    """Rows of ``operations.csv``."""
    for row in pair.details:
        bytes_ = row.nbytes.plain("bytes")
        yield {
            "pair": pair.name,
            "operation": row.name,
            "ranks": row.match.label,
            **row.what.plain(),
            **{key: value for key, value in row.seconds.plain("seconds").items() if key != "name"},
            "predicted_bytes": bytes_["predicted_bytes"],
            "measured_bytes": bytes_["measured_bytes"],
        }


def _error(row: ComparisonRow) -> str:
    return _signed(row.relative_error)


def _signed(error: float | None) -> str:
    return "-" if error is None else percent(error)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _value(value: Any) -> str:
    """A value of the run's conditions as text."""
    return shown(value) if isinstance(value, str | bool | int) or value is None else json.dumps(value)
