"""Plots as Vega-Lite: grammar in, no drawing. Sizes, letters and colours of the page are the page's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....hardware.units import si
from ...content.colours import COLOURS, SERIES
from ..story import Chart

Rows = Sequence[Mapping[str, Any]]
Spec = dict[str, Any]

_WITH = "datum.value == 0 ? '0' : replace(format(datum.value, '.3~s'), regexp('([^0-9.]?)$'), ' $1{unit}')"
SECONDS, BYTES = _WITH.format(unit="s"), _WITH.format(unit="B")
SHARE = "format(datum.value, '.3~p')"
NUMBER = "abs(datum.value) >= 1e4 ? format(datum.value, '~s') : format(datum.value, ',.6~g')"


def axis(title: str, label: str = NUMBER, **more: Any) -> Spec:
    """A quantitative axis; ``label`` is an expression of its ticks."""
    return {"title": title, "labelExpr": label, "tickCount": 5, **more}


def tooltip(**fields: str) -> list[Spec]:
    """What a pointer is told: texts of a row, by their titles."""
    return [{"field": field, "title": title.replace("_", " ")} for title, field in fields.items()]


def coloured(colours: Mapping[str, str], field: str, title: str = "") -> Spec:
    """Colours of a field's values; the legend takes clicks."""
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": [*colours], "range": [*colours.values()]},
        "legend": {"title": title or None, "orient": "bottom"},
    }


def by_legend(field: str) -> Spec:
    """Keys of a plot whose legend picks what is seen."""
    return {
        "params": [{"name": "picked", "select": {"type": "point", "fields": [field]}, "bind": "legend"}],
        "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.12},
    }


def stacked(rows: Rows, alt: str, caption: str, title: str, name: str, label: str = SECONDS) -> Chart:
    """Bars of ``amount`` by ``name``, stacked by ``category``; each row has ``text`` for the pointer."""
    colours = {key.replace("_", "-"): COLOURS[key] for key in COLOURS}
    there = {str(row["category"]) for row in rows}
    picked = by_legend("category")
    spec = {
        "height": {"step": 34},
        "params": picked["params"],
        "mark": {"type": "bar", "height": {"band": 0.7}},
        "encoding": {
            "y": {"field": "name", "type": "nominal", "sort": None, "title": name or None},
            "x": {"field": "amount", "type": "quantitative", "axis": axis(title, label)},
            "color": coloured({key: value for key, value in colours.items() if key in there}, "category"),
            "order": {"field": "order"},
            "opacity": picked["opacity"],
            "tooltip": [
                {"field": "name", "title": name or "part"},
                *tooltip(what="category", amount="text", share="share"),
            ],
        },
    }
    return Chart("plot", alt, caption, {"spec": spec, "rows": list(rows)})


def bars(
    rows: Rows, alt: str, caption: str, title: str, name: str, label: str = NUMBER, limit: Spec | None = None
) -> Chart:
    """A bar for each row: ``name``, ``amount``, and ``text`` for the pointer; ``limit`` is a value and its ``text``."""
    colour = (
        {"field": "colour", "type": "nominal", "scale": None} if rows and "colour" in rows[0] else {"value": SERIES[0]}
    )
    x = {"field": "amount", "type": "quantitative", "axis": axis(title, label)}
    drawn: Spec = {
        "mark": {"type": "bar", "height": {"band": 0.7}},
        "encoding": {
            "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
            "x": x,
            "color": colour,
            "tooltip": [{"field": "name", "title": name or "part"}, *tooltip(amount="text")],
        },
    }
    layer = [drawn]
    if limit:
        rule = {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 2, "color": SERIES[1]}
        encoding = {"x": x, "tooltip": tooltip(limit="text")}
        layer.append({"data": {"values": [limit]}, "mark": rule, "encoding": encoding})
    return Chart("plot", alt, caption, {"spec": {"height": {"step": 26}, "layer": layer}, "rows": list(rows)})


def curves(
    rows: Rows, alt: str, caption: str, x: Spec, y: Spec, colours: Mapping[str, str] | None = None, points: bool = True
) -> Chart:
    """Lines of ``y`` over ``x`` by ``series``; each row has ``text``. ``x`` and ``y`` are keys of encodings: axis, scale."""
    names = list(dict.fromkeys(str(row["series"]) for row in rows))
    colours = colours or {name: SERIES[at % len(SERIES)] for at, name in enumerate(names)}
    picked = by_legend("series")
    spec = {
        "height": 260,
        "params": picked["params"],
        "mark": {"type": "line", "point": points, "tooltip": True},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", **x},
            "y": {"field": "y", "type": "quantitative", **y},
            "color": coloured(colours, "series") if len(names) > 1 else {"value": SERIES[0]},
            "opacity": picked["opacity"],
            "tooltip": tooltip(series="series", at="text"),
        },
    }
    return Chart("plot", alt, caption, {"spec": spec, "rows": list(rows)})


def memory(parts: Mapping[str, float], name: str) -> Chart:
    """Bytes of the fullest rank by part beside its capacity."""
    kept = {part: size for part, size in parts.items() if part not in ("total", "capacity") and size > 0}
    rows = [
        {"name": part, "amount": size, "text": f"{si(size, 'B', 3)}, {size / parts['capacity']:.1%} of the capacity"}
        for part, size in [*kept.items(), ("total", parts["total"])]
    ]
    told = ", ".join(f"{part} {si(size, 'B', 3)}" for part, size in kept.items())
    limit = {"amount": parts["capacity"], "text": f"capacity {si(parts['capacity'], 'B', 3)}"}
    alt = f"Bars of the memory of {name}: {told}; a dashed line at the capacity of {si(parts['capacity'], 'B', 3)}."
    return bars(rows, alt, "Bytes of the fullest rank; the dashed line is its capacity.", "bytes", "", BYTES, limit)
