"""The documentation's tables of accuracy, from what ``benchmarks/accuracy.py`` has kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

Lines = Callable[..., list[str]]
"""Columns, rows and how many columns of text make the lines of a table."""

SIGNS = {"bias": "+.1%", "worst": "+.1%", "rank_correlation": ".2f"}

README_SOURCES = (
    "SC21 Table 1",
    "Korthikanti 2022 Table 5",
    "vTrain data",
    "bigscience tr11",
    "H100 weak",
    "Azure ZeRO-3",
    "ZeRO++",
    "MoE-ModelZoo",
)
"""Large sources, which stand in the README."""


def by_source(record: dict[str, Any], lines: Lines) -> list[str]:
    """Errors of every source, of all, and of memory; and the null model on the rows of which it speaks."""
    columns = ("source", "rows", "left out", "bias", "MAPE", "median", "95 %", "worst", "order", "regret", "null model")
    keys = ("bias", "mape", "median", "p95", "worst", "rank_correlation", "regret", "null_mape")
    shown = [each for each in record["sources"] if each["rows"]]
    told = [(each["source"], each) for each in shown]
    told.append(("**all**", record["overall"]))
    told += [(f"**memory, {name}**", each) for name, each in record["memory"].items()]
    rows = [(name, str(each["rows"]), str(each["skipped"]), *_cells(each, keys)) for name, each in told]
    beside = (
        "On the {null_rows} rows that the null model predicts, its mean error is {null_mape:.1%}, and the simulator's"
        " {mape_beside_null:.1%}. On the {unfitted_rows} rows that no constant was fitted to or read off it is"
        " {unfitted_mape:.1%}. Intervals cover {coverage:.0%} of all rows that have one. {hidden} more sources have no row"
        " that can be predicted; the reasons stand in the output."
    )
    hidden = len(record["sources"]) - len(shown)
    return [*lines(columns, rows), "", *wrap(beside.format(**record["overall"], hidden=hidden), 100)]


def by_fit(record: dict[str, Any], lines: Lines) -> list[str]:
    """Every fit: how well runs tell its values, and errors of the runs fitted to, held out, and left out by publication."""
    columns = (
        "fit",
        "values",
        "runs",
        "held out",
        "MAPE",
        "held out",
        "each left out",
        "its median",
        "null",
        "its median",
    )
    rows = []
    for each in record["fits"]:
        errors = each["errors"]
        values = ", ".join(
            f"{key.rpartition('.')[2]} {value:.3g}{_well(each, key)}"
            for key, value in each["values"].items()
            if not key.endswith("dma_write")
        )
        left = (
            next((found for name, found in errors.items() if name.startswith("leave_one")), None) or errors["held_out"]
        )
        null = errors.get("null") or {"mape": None, "median": None}
        cells = (
            errors["fitted"]["mape"],
            errors["held_out"]["mape"],
            left["mape"],
            left["median"],
            null["mape"],
            null["median"],
        )
        counts = (str(errors["fitted"]["rows"]), str(errors["held_out"]["rows"]))
        rows.append((f"{each['kind']} {each['name']}", values, *counts, *(_percent(cell) for cell in cells)))
    return lines(columns, rows, 2)


def _well(fit: dict[str, Any], key: str) -> str:
    if key in fit["standard_errors"]:
        return f" ±{fit['standard_errors'][key]:.0%}"
    return f" (at its {fit['at_bound'][key]} bound)" if key in fit.get("at_bound", {}) else ""


def unseen(record: dict[str, Any], lines: Lines) -> list[str]:
    """Errors of all runs of steps, each under constants fitted without its publication."""
    columns = ("runs", "number", "bias", "MAPE", "median", "worst")
    rows = [
        (name, str(each["rows"]), *_cells(each, ("bias", "mape", "median", "worst")))
        for name, each in record.get("leave_one_publication_out", {}).items()
    ]
    covers = record.get("coverage")
    told = (
        ""
        if covers is None
        else f"Intervals that are made without a run's publication cover {covers:.0%} of these runs."
    )
    return [*lines(columns, rows), "", told]


def far(record: dict[str, Any], lines: Lines) -> list[str]:
    """Runs whose predictions are off by more than a factor of 1.6, by name, with what is known of the reason."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in record.get("far", []):
        found.setdefault(each["explained"] or "not known", []).append(each)
    rows = [
        (
            ", ".join(each["id"] for each in runs),
            ", ".join(format(each["relative_error"], "+.0%") for each in runs),
            explained,
        )
        for explained, runs in found.items()
    ]
    return lines(("run", "error", "why, as far as it is known"), rows, 3)


def in_short(record: dict[str, Any], lines: Lines) -> list[str]:
    """Large sources, and all."""
    found = [each for text in README_SOURCES for each in record["sources"] if text in each["source"]]
    found.append({**record["overall"], "source": "all sources"})
    keys = ("mape", "median", "null_mape")
    rows = [(each["source"], str(each["rows"]), *_cells(each, keys)) for each in found]
    unseen = record["overall"]
    rows.append(
        ("of these, no constant fitted to", str(unseen["unfitted_rows"]), _percent(unseen["unfitted_mape"]), "", "")
    )
    return lines(("source", "rows", "MAPE", "median", "null model"), rows)


def _cells(told: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return ["" if told.get(key) is None else format(told[key], SIGNS.get(key, ".1%")) for key in keys]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
