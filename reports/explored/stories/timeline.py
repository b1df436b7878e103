"""Operations of a trace as a timeline that is zoomed: lanes, texts once each, times as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ....hardware.units import si
from ....workloads.results.trace import TraceRow
from ...content.colours import COLOURS
from ..story import Chart

MOST_BARS = 12_000
"""Operations that a page holds; neighbours of one category are joined where there are more."""

MOST_CLASSES = 8
"""Classes of ranks that a page shows."""


class _Texts:
    """Texts, each once, by their number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def timeline(trace: Sequence[TraceRow]) -> Chart | None:
    """The first step of a trace; None of an empty one."""
    first = min((row.step for row in trace), default=None)
    rows = [row for row in trace if row.step == first and row.end >= row.start]
    if not rows:
        return None
    classes = _classes(rows)
    lanes = _Texts()
    by_lane: dict[int, list[TraceRow]] = {}
    for row in sorted(rows, key=lambda row: classes.get(row.ranks, 0)):
        if row.ranks in classes:
            by_lane.setdefault(lanes(f"{row.ranks}: {row.stream}" if len(classes) > 1 else row.stream), []).append(row)
    bars, joined = _few_enough(by_lane)
    names, categories = _Texts(), _Texts()
    columns: dict[str, list[Any]] = {key: [] for key in ("lane", "name", "category", "start", "seconds")}
    for lane, found in bars.items():
        for some in found:
            columns["lane"].append(lane)
            columns["name"].append(names(_told(some)))
            columns["category"].append(categories(some[0].category.replace("_", "-")))
            columns["start"].append(_short(some[0].start))
            columns["seconds"].append(_short(max(row.end for row in some) - some[0].start))
    colours = {name: COLOURS.get(name.replace("-", "_"), COLOURS["other"]) for name in categories.numbers}
    end = max(row.end for row in rows)
    shown = (
        f"{len(classes)} of {len({row.ranks for row in rows})} classes of ranks"
        if len(classes) > 1
        else "one class of ranks"
    )
    alt = (
        f"A timeline of step {first}: {len(columns['lane']):,} bars in {len(lanes.numbers)} lanes, {shown}, over {si(end, 's')}."
        f" Lanes: {', '.join(lanes.numbers)}."
    )
    caption = "Drag over a span to look into it; or focus it and use + and −, the arrow keys, and 0 for the whole step."
    if joined:
        caption += (
            f" {len(rows):,} operations are too many for a page: neighbours of one category are drawn as one bar."
        )
    content = {
        "lanes": [*lanes.numbers],
        "names": [*names.numbers],
        "colours": colours,
        "columns": columns,
        "end": _short(end),
    }
    return Chart("timeline", alt, caption, content)


def _classes(rows: Iterable[TraceRow]) -> dict[str, int]:
    """The classes that are shown, with their places: all of few; of many the ones that end last, and the first."""
    ends: dict[str, float] = {}
    for row in rows:
        ends[row.ranks] = max(ends.get(row.ranks, 0.0), row.end)
    kept = [*ends]
    if len(kept) > MOST_CLASSES:
        late = sorted(ends, key=lambda name: -ends[name])[: MOST_CLASSES - 1]
        kept = list(dict.fromkeys([kept[0], *late]))
    return {name: at for at, name in enumerate(kept)}


def _few_enough(lanes: dict[int, list[TraceRow]]) -> tuple[dict[int, list[list[TraceRow]]], bool]:
    """Operations of each lane by the bars that stand for them, at most :data:`MOST_BARS`, and whether any were joined."""
    found = {lane: [[row] for row in sorted(rows, key=lambda row: row.start)] for lane, rows in lanes.items()}
    span = max(row.end for rows in lanes.values() for row in rows) or 1.0
    gap, joined = span / 50_000, False
    while sum(map(len, found.values())) > MOST_BARS and gap < span:
        near = gap

        def joins(left: list[TraceRow], right: list[TraceRow], near: float = near) -> bool:
            ends = left[-1].end
            return (
                left[0].category == right[0].category
                and right[0].start - ends < near
                and right[-1].end - left[0].start < 8 * near
            )

        found = {lane: _joined(bars, joins) for lane, bars in found.items()}
        gap, joined = 2 * gap, True
    return found, joined


def _joined(
    bars: list[list[TraceRow]], joins: Callable[[list[TraceRow], list[TraceRow]], bool]
) -> list[list[TraceRow]]:
    made: list[list[TraceRow]] = []
    for bar in bars:
        if made and joins(made[-1], bar):
            made[-1] = made[-1] + bar
        else:
            made.append(bar)
    return made


def _told(some: Sequence[TraceRow]) -> str:
    """What the pointer is told of a bar."""
    if len(some) > 1:
        return f"{len(some)} operations, {some[0].operation} to {some[-1].operation}"
    row = some[0]
    parts = [row.operation, row.phase, f"{row.collective} over {row.axes}" if row.collective else row.kind]
    parts += [si(row.nbytes, "B", 3)] if row.nbytes else []
    parts += [si(row.flops, "FLOP", 3)] if row.flops else []
    parts += [f"limited by {row.limit}"] if row.limit else []
    return ", ".join(parts)


def _short(seconds: float) -> float:
    """A time to nine digits: more cannot be seen, and takes room."""
    return float(f"{seconds:.9g}")
