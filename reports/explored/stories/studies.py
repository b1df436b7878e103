"""The story of a study: its table of points, sliders over its grid, and plots of the columns that a reader picks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from ...content.colours import COLOURS, SERIES
from ...content.sections import Section
from ...content.studies import SHARES, SHOWN, cell, column_title, heading, point_rows, reason_rows
from ..story import Chart, Fact, Story, StoryPart

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 2_000
"""Points that a page holds."""

FIRST = ("point", "name", "command", "machine", "model")
"""Columns before those that vary."""

GOALS = ("step_seconds", "wall_clock_seconds.median", "seconds", "total")
"""What a study looks at, by command, where it has no other goal."""

Row = Mapping[str, Any]


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table of points: empty cells as None, yes and no as truths."""
    found = []
    for row in frame.to_dict(orient="records"):
        plain = {str(key): _plain(value) for key, value in row.items()}
        found.append({key: value for key, value in plain.items() if value is not None or key in ("status", "reason")})
    return found


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and not isfinite(value)) or value == "":
        return None
    return {"yes": True, "no": False}.get(value, value) if isinstance(value, str) else value


def story(frame: pd.DataFrame, title: str, links: Sequence[str] = ()) -> Story:
    """What a table of points says; ``links`` are addresses of the points' own pages."""
    names, rows = [str(name) for name in frame.columns], plain_rows(frame)
    varied = varied_columns(names, rows)
    command = str(next((row["command"] for row in rows if row.get("command")), ""))
    done = [row for row in rows if row["status"] == "ok"]
    goal = next((name for name in GOALS if name in names), "")
    best = min((row for row in done if goal in row), key=lambda row: row[goal], default=None)
    columns = [
        name
        for name in dict.fromkeys([*varied, *SHOWN.get(command, []), "speedup", "efficiency", "limit"])
        if name in names
    ]
    columns = [
        name for name in columns if name in (*varied, goal) or _values(done, name) > 1
    ]  # all else is of all points
    columns = [name for name in columns if not (name == "mesh" and "plan.mesh" in varied)]
    text = f"The first {MOST_ROWS:,} of {len(rows):,}." if len(rows) > MOST_ROWS else ""
    heads = ("point", *(column_title(name) for name in columns), "status")
    shown = rows[:MOST_ROWS]
    texts = list(point_rows([{"point": at, **row} for at, row in enumerate(shown)], columns))
    parts = []
    if sliders := _grid(rows, varied, goal, columns):
        parts.append(
            StoryPart(Section("Turn the knobs", "Each position of the sliders is a point of the study."), [sliders])
        )
    charts = [_picked(names, shown, columns, varied, goal)] if goal and done else []
    parts.append(
        StoryPart(
            Section("Points", text, heads, texts, 1),
            charts,
            filtered=True,
            links=[(each,) for each in links[:MOST_ROWS]],
        )
    )
    if reasons := reason_rows([{"reason": "", **row} for row in rows]):
        parts.append(StoryPart(Section("Points without a result", "", ("status", "points", "reason"), reasons, 3)))
    return Story(
        kind="a study",
        title=title,
        answer=_answer(rows, done, best, goal, varied),
        facts=_facts(rows, done, best, goal, varied),
        parts=parts,
        sources=[_shared(rows, varied)],
        warnings=list(dict.fromkeys(str(row["warnings"]) for row in done if row.get("warnings")))[:5],
        summary={"rows": rows, "varied": varied, "goal": goal},
    )


def varied_columns(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The columns that tell points apart: they stand between what a point is and its status."""
    between = names[: names.index("status")]
    return [
        name for name in between if name not in FIRST or (name not in ("point", "command") and _values(rows, name) > 1)
    ]


def _values(rows: Sequence[Row], name: str) -> int:
    return len({str(row.get(name)) for row in rows})


def _where(row: Row, varied: Sequence[str]) -> str:
    return ", ".join(f"{heading(name)} {cell(name, row[name])}" for name in varied if name in row)


def _answer(rows: Sequence[Row], done: Sequence[Row], best: Row | None, goal: str, varied: Sequence[str]) -> str:
    told = f"{len(rows):,} points, {len(done):,} with a result."
    if best is None or len(done) < 2:
        return told
    return f"{told} Least {column_title(goal)}: {cell(goal, best[goal])} at point {best['point']} ({_where(best, varied)})."


def _facts(rows: Sequence[Row], done: Sequence[Row], best: Row | None, goal: str, varied: Sequence[str]) -> list[Fact]:
    told = [Fact("Points", f"{len(done):,} of {len(rows):,}", "have a result", len(done) == len(rows))]
    if best is None:
        return told
    told.insert(0, Fact(f"Least {column_title(goal)}", cell(goal, best[goal]), _where(best, varied)))
    for name, label in (("mfu", "MFU"), ("goodput", "Goodput")):
        if name in best:
            told.insert(1, Fact(label, cell(name, best[name]), f"of point {best['point']}"))
    if "limit" in best:
        told.append(Fact("Bottleneck", str(best["limit"]).replace("_", " "), f"of point {best['point']}"))
    if "fits" in best:
        fit = sum(bool(row.get("fits")) for row in done)
        told.append(Fact("Memory", f"{fit:,} fit", f"of {len(done):,} points with a result", fit == len(done)))
    return told


def _parts(row: Row) -> dict[str, float]:
    found = {name.removeprefix("breakdown."): value for name, value in row.items() if name.startswith("breakdown.")}
    return {
        name.replace("_", "-"): value for name, value in found.items() if isinstance(value, int | float) and value > 0
    }


def _grid(rows: Sequence[Row], varied: Sequence[str], goal: str, columns: Sequence[str]) -> Chart | None:
    """Sliders, where the points are a whole grid of at most four keys."""
    every: list[tuple[str, list[Any]]] = [(name, list(dict.fromkeys(row.get(name) for row in rows))) for name in varied]
    axes = [(name, sorted(each) if all(map(_is_number, each)) else each) for name, each in every if len(each) > 1]
    size = prod(len(values) for _, values in axes)
    if not goal or not 1 <= len(axes) <= 4 or size != len(rows) or size > MOST_ROWS:
        return None
    by_place = {tuple(row.get(name) for name, _ in axes): row for row in rows}
    if len(by_place) != size:
        return None
    results = [name for name in columns if name not in varied]
    points = [_point(by_place[place], goal, results) for place in product(*(values for _, values in axes))]
    best = min(range(size), key=lambda at: points[at]["value"] if points[at]["value"] is not None else float("inf"))
    place = list(product(*(range(len(values)) for _, values in axes)))[best]
    told = [
        {"label": heading(name), "at": at, "texts": [cell(name, value) or "none" for value in values]}
        | ({"values": values} if all(_is_number(value) for value in values) else {})
        for (name, values), at in zip(axes, place, strict=True)
    ]
    labels = ", ".join(str(each["label"]) for each in told)
    alt = f"Sliders over {labels}; they begin at the point with the least {column_title(goal)}."
    caption = "Lines: each slider from end to end, the others where they stand; the ring is where it is."
    content = {
        "axes": told,
        "points": points,
        "base": best,
        "measure": column_title(goal),
        "seconds": "seconds" in goal,
    }
    content |= {"names": ("the best", "chosen"), "back": "To the best point"}
    return Chart("choice", alt, caption, content | {"colours": _colours(rows), "series": SERIES})


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    there = {name for row in rows for name in _parts(row)}
    return {name.replace("_", "-"): tint for name, tint in COLOURS.items() if name.replace("_", "-") in there}


def _point(row: Row, goal: str, results: Sequence[str]) -> dict[str, Any]:
    facts = [(column_title(name), cell(name, row[name])) for name in results if name in row]
    point = {"value": row.get(goal), "text": cell(goal, row.get(goal)), "facts": facts, "parts": _parts(row)}
    point["said"] = f"Point {row['point']}."
    return point if row["status"] == "ok" else {"value": None, "reason": f"{row['status']}: {row.get('reason') or ''}"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _picked(names: Sequence[str], rows: Sequence[Row], shown: Sequence[str], varied: Sequence[str], goal: str) -> Chart:
    """Any two columns against each other, coloured by a third."""
    numbers = [
        name
        for name in names
        if name in shown or name.partition(".")[0] in ("breakdown", "memory_per_rank_bytes", "phases")
    ]
    numbers = [name for name in numbers if any(row.get(name) not in (None, 0, "") for row in rows)]
    kept = [name for name in dict.fromkeys([*varied, *numbers]) if name != "inputs"]
    columns: list[dict[str, Any]] = [
        {"name": name, "title": heading(name), "number": all(_is_number(row.get(name, 0)) for row in rows)}
        | {"few": 1 < _values(rows, name) <= 12, "told": name in varied or name == goal}
        | {"unit": _unit(name)}
        for name in kept
    ]
    table = [[_plotted(row.get(column["name"]), bool(column["number"])) for column in columns] for row in rows]
    texts = [[cell(name, row.get(name)) for name in kept] for row in rows]
    spread = sorted((name for name in varied), key=lambda name: -_values(rows, name))
    x = spread[0] if spread else kept[0]
    colour = next(
        (column["name"] for column in columns if column["few"] and column["name"] != x and column["name"] in varied), ""
    )
    alt = f"Points of the study: {column_title(goal)} over {heading(x)}; other columns can be picked."
    content = {"columns": columns, "rows": table, "texts": texts, "chosen": {"x": x, "y": goal, "colour": colour}}
    return Chart(
        "picked",
        alt,
        "Pick what is plotted; filtering the table filters this.",
        content | {"series": SERIES, "line": False},
    )


def _unit(name: str) -> str:
    """How an axis writes a column's values."""
    if "seconds" in name or name.startswith(("breakdown", "phases")):
        return "seconds"
    return "share" if name in SHARES else ""


def _plotted(value: Any, number: bool) -> float | str | None:
    """What is plotted of a cell: nothing where a column of numbers has none."""
    return (value if _is_number(value) else None) if number else str("" if value is None else value)


def _shared(rows: Sequence[Row], varied: Sequence[str]) -> Section:
    """What all points share, from their exact inputs."""
    first: dict[str, Any] = json.loads(rows[0]["inputs"]) if rows and rows[0].get("inputs") else {}
    flat = [
        (name, value) for name, value in _flat(first) if name not in varied and name.removeprefix("set.") not in varied
    ]
    text = "Of the first point, without what varies; each point's exact inputs stand in the column inputs of its file."
    return Section(
        "Inputs", text, ("key", "value"), [(name, str(value)) for name, value in flat if value not in (None, "")], 2
    )


def _flat(plain: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in plain.items():
        found += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]
    return found
