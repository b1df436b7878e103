"""What a study came to, as tables: its points, why some of them failed, what its figure depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...hardware.units import KILOWATT_HOUR, duration, si
from .sections import Section
from .words import count_text

if TYPE_CHECKING:
    from ...sim.studies.study.run import StudyResult

MOST_ROWS = 60
"""Points that a page shows; files have all of them."""

MOST_REASONS = 12

SHOWN = {
    "simulate": [
        "nodes",
        "mesh",
        "experts",
        "parameters.total",
        "step_seconds",
        "tokens_per_second",
        "flops_per_second",
        "mfu",
    ],
    "campaign": [
        "nodes",
        "mesh",
        "wall_clock_seconds.median",
        "goodput",
        "interruptions",
        "energy_joules",
        "co2_kilograms",
        "cost",
    ],
    "collective": ["algorithm", "ranks", "bytes", "seconds", "bus_bandwidth", "bottleneck"],
    "memory": ["total", "capacity", "fits"],
}
"""Columns of results that a table shows, where the study names none, by command."""

SHARES = ("mfu", "hfu", "goodput", "efficiency", "peak_fraction")


def columns_of(result: StudyResult) -> list[str]:
    """The columns that tables show: what tells points apart, and the results that the study names, or the usual ones."""
    file = result.file
    inputs = ["name"] if any("name" in row for row in file.rows) else []
    inputs += [key for key in file.varied if not (inputs and key.startswith("plan."))]
    named = list(file.table) or list(SHOWN[file.command])
    if file.scale and not file.table:
        named += ["speedup", "efficiency"]
    skipped = {"mesh"} if "plan.mesh" in inputs else set()
    return list(dict.fromkeys([*inputs, *(name for name in named if name not in skipped)]))


def point_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Points as texts; of a failed one its status in the place of its first result."""
    for row in rows:
        cells = [cell(name, row.get(name)) for name in columns]
        yield (str(row["point"]), *cells, "" if row["status"] == "ok" else row["status"])


def cell(name: str, value: Any) -> str:
    """A value as people read it, by the unit that its column's name ends in."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    stem = name.rpartition(".")[2] if name.rpartition(".")[2] not in ("median", "p5", "p95") else name.split(".")[-2]
    if stem in SHARES:
        return f"{value:.1%}"
    if name.partition(".")[0] in ("breakdown", "phases"):
        return si(value, "s")
    if stem == "wall_clock_seconds":
        return duration(value)
    if stem == "energy_joules":
        return f"{_rounded(value / KILOWATT_HOUR / 1e3)} MWh"
    if stem == "co2_kilograms":
        return f"{_rounded(value / 1e3)} t"
    if stem == "cost":
        return f"{_rounded(value / 1e6)} M USD" if value >= 1e6 else f"{value:,.0f} USD"
    if stem.endswith("seconds"):
        return si(value, "s")
    if name.startswith("parameters."):
        return count_text(value, 4)
    if stem in ("flops_per_second",):
        return si(value, "FLOP/s")
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1e4 or abs(value) >= 1e15 else f"{value:,.0f}"


def _rounded(value: float) -> str:
    """To four digits, or to whole ones."""
    return f"{value:,.0f}" if value >= 1e3 else f"{value:,.4g}"


def heading(name: str) -> str:
    """A column's name as people read it."""
    return name.replace("_", " ").removesuffix(".median").removeprefix("plan.").removesuffix(".total")


def column_title(name: str) -> str:
    """The head of a column whose cells have their units."""
    text = heading(name).removeprefix("step.")
    for unit in (" seconds", " joules", " kilograms", " per second"):
        text = text.removesuffix(unit) + ("/s" if text.endswith(unit) and unit == " per second" else "")
    return text


def answer(result: StudyResult) -> str:
    """How many points there are, and the best of them."""
    counts = result.counts()
    failed = "".join(f", {count:,} {status}" for status, count in counts.items() if status != "ok" and count)
    told = f"{len(result.points):,} points: {counts['ok']:,} done{failed}."
    if not result.complete:
        told += f" {len(result.points) - result.done:,} are left."
    best = result.best()
    if best is None or counts["ok"] < 2:
        return told
    goal = result.file.objective
    sample = result.file.sample
    most = "Most" if sample and sample.goal == "maximise" else "Least"
    keys = [key for key in ("name", *result.file.varied, "scale.nodes") if best.get(key) is not None]
    what = ", ".join(f"{heading(key)} {cell(key, best[key])}" for key in keys)
    return f"{told} {most} {column_title(goal)}: {cell(goal, best.get(goal))} at point {best['point']} ({what})."


def reason_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """(status, points, reason), the most frequent first."""
    found = Counter((row["status"], row["reason"]) for row in rows if row["status"] != "ok")
    return [(status, f"{count:,}", reason) for (status, reason), count in found.most_common(MOST_REASONS)]


def sensitivity_section(result: StudyResult) -> Section:
    """What the figure depends on."""
    rows = result.sensitivity
    columns = list(dict.fromkeys(key for row in rows for key in row))
    texts = [tuple(cell(name, row.get(name)) for name in columns) for row in rows]
    sample = result.file.sample
    assert sample is not None
    text = f"Of {heading(sample.of)}, by the method of {sample.method.capitalize()}."
    return Section("Sensitivity", text, [heading(name) for name in columns], texts, 2)


def sections(result: StudyResult) -> list[Section]:
    """The tables of a study."""
    rows, columns = list(result.rows()), columns_of(result)
    text = f"The first {MOST_ROWS} of {len(rows):,}; points.csv has all." if len(rows) > MOST_ROWS else ""
    heads = ("point", *(column_title(name) for name in columns), "status")
    found = [Section("Points", text, heads, [*point_rows(rows[:MOST_ROWS], columns)], 2)]
    if reasons := reason_rows(rows):
        found.append(Section("Points without a result", "", ("status", "points", "reason"), reasons, 3))
    if result.sensitivity:
        found.append(sensitivity_section(result))
    return found
