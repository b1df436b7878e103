"""Accuracy as tables, plots, files and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..content.sections import Picture, Section
from ..studies.accuracy.validate import Accuracy
from ..tables.runs import table
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from rich.console import Console

SOURCES = ("source", "rows", "left out", "bias", "MAPE", "median", "95 %", "worst", "order", "regret", "null model")
ORDERS = ("plans of", "plans", "apart", "order", "clear pairs", "regret", "chosen", "worst")
ROWS = ("row", "metric", "predicted", "measured", "unit", "error", "null model", "kind", "assumed")
LEFT = ("row", "reason")
MEMORY = {"measured": "measured", "formula": "by formula"}
NAME = 62
"""Letters of a source that the terminal shows."""

ORDER = (
    "Plans of one model, batch and machine, among which a user would choose. Apart: how much longer the slowest took than the"
    " fastest. Clear pairs differ by more than 5 %, and the share of them is told whose order is predicted. Regret is what the"
    " chosen plan, which the prediction ranks first, took longer than the best. The worst plan is the one whose error differs"
    " most from that of the others."
)

LEAD = (
    "Every published measurement for which the catalogue has a machine, predicted with one set of constants per accelerator and"
    " fabric. The null model is FLOPs over peak with one fitted constant, the bubble, and rings at nominal link speed; it stands"
    " beside each prediction on the same rows. Order is the rank correlation of plans of one model, regret what the plan that"
    " the prediction ranks first costs over the best. Rows are called fitted where a constant was fitted to them."
)


def show_accuracy(console: Console, found: Accuracy) -> None:
    """Errors by source and in all, and why rows were left out."""
    rows = source_rows(found)
    console.print(table("How far predictions are from published measurements", SOURCES, _short(rows)))
    if found.orders:
        console.print(table("Order of plans among which a user would choose", ORDERS, _short(order_rows(found))))
    reasons = Counter(each.reason for each in found.outcomes if each.prediction is None)
    if reasons:
        listed = [(reason, str(count)) for reason, count in reasons.most_common()]
        console.print(table("Rows left out", ("reason", "rows"), listed))


def answer(found: Accuracy) -> str:
    """How far predictions are in all, in a sentence."""
    judged = found.judged(found.measured)
    if not judged["rows"]:
        return "No row can be predicted."
    null = "" if judged["null_mape"] is None else f"; of the null model {judged['null_mape']:.1%}"
    return (
        f"{judged['rows']} published steps: mean error {judged['mape']:.1%}, median {judged['median']:.1%},"
        f" worst {_signed(judged['worst'])}{null}."
    )


def source_rows(found: Accuracy) -> list[tuple[str, ...]]:
    """A row a source that has predictions, then all of them together, then memory, which no time is mixed with."""
    plain = [(name, found.judged(rows)) for name, rows in found.sources.items()]
    plain.append(("all sources", found.judged(found.measured)))
    plain += [(f"memory, {MEMORY[kind]}", found.judged(rows)) for kind, rows in found.memory.items()]
    return [_source_row(name, judged) for name, judged in plain if judged["rows"]]


def order_rows(found: Accuracy) -> list[tuple[str, ...]]:
    """A row for each group of plans of one model, batch and machine."""
    return [
        (
            f"{each['source']}, {each['model']}, {each['batch']} sequences",
            str(each["plans"]),
            _plain(each["spread"]),
            "" if each["rank_correlation"] is None else f"{each['rank_correlation']:.2f}",
            "" if each["clear_ordered"] is None else f"{each['clear_ordered']:.0%} of {each['clear_pairs']}",
            _plain(each["regret"]),
            each["chosen"],
            each["worst"],
        )
        for each in found.orders
    ]


def _source_row(name: str, judged: dict[str, Any]) -> tuple[str, ...]:
    keys = ("mape", "median", "p95")
    return (
        name,
        str(judged["rows"]),
        str(judged["skipped"]),
        _signed(judged["bias"]),
        *(_plain(judged[key]) for key in keys),
        _signed(judged["worst"]),
        "" if judged["rank_correlation"] is None else f"{judged['rank_correlation']:.2f}",
        "" if judged["regret"] is None else _plain(judged["regret"]),
        "" if judged["null_mape"] is None else _plain(judged["null_mape"]),
    )


def _signed(error: float) -> str:
    """A relative error to a tenth of a percent."""
    return f"{round(error, 3) + 0.0:+.1%}"


def _plain(size: float) -> str:
    """The size of errors."""
    return f"{size:.1%}"


def _short(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(name if len(name) <= NAME else f"{name[: NAME - 1]}…", *others) for name, *others in rows]


@all_or_nothing
def write_accuracy(folder: Folder, found: Accuracy, command: str) -> None:
    """Write ``accuracy.json``, ``accuracy.csv``, the plots and ``report.html``."""
    import pandas as pd

    from ..plots.accuracy import drawings
    from .html_page import write_report

    plain = found.plain()
    folder.json("accuracy.json", plain)
    frame = pd.DataFrame(plain["rows"])
    frame["assumed"] = frame["assumed"].map("; ".join)
    folder.frame("accuracy.csv", frame)
    pictures = [Picture(folder.figure(name, figure), caption) for name, caption, figure in drawings(found)]
    left = [(row["id"], row["reason"]) for row in plain["rows"] if row["reason"]]
    sections = [
        Section("By source", LEAD, SOURCES, source_rows(found), figures=pictures),
        Section("Order of plans", ORDER, ORDERS, order_rows(found), 1),
        Section("Row by row", "", ROWS, [_row(row) for row in plain["rows"] if not row["reason"]], 2),
        Section("Left out", "Rows that are not predicted, and why.", LEFT, left, 2),
    ]
    write_report(folder, "How accurate is it?", answer(found), sections, [command], [])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    null = row["null_relative_error"]
    return (
        row["id"],
        row["metric"],
        f"{row['predicted']:.4g}",
        f"{row['measured']:.4g}",
        row["unit"],
        _signed(row["relative_error"]),
        "" if null is None else _signed(null),
        "fitted" if row["fitted"] else "predicted",
        "; ".join(row["assumed"]),
    )
