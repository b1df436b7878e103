"""Points of a what-if grid behind sliders."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ....hardware.units import si
from ...content.colours import COLOURS, SERIES
from ...content.words import percent
from ..story import Chart

if TYPE_CHECKING:
    from ....sim.what_if import KnobGrid
    from ....workloads.results.totals import Totals

LABELS = {"links": "Bandwidth of all links", "arithmetic": "Peak of the arithmetic", "jitter": "Jitter"}
"""What sliders are called."""


def choice(grid: KnobGrid) -> Chart:
    """Sliders over a grid; they begin at the machine as it is."""
    axes: list[dict[str, Any]] = [
        {"label": LABELS[axis.what], "at": axis.factors.index(1.0), "values": axis.factors}
        | {"texts": [f"x{factor:g}" for factor in axis.factors]}
        for axis in grid.axes
    ]
    base = _place([len(axis["values"]) for axis in axes], [axis["at"] for axis in axes])
    here = grid.points[base]
    step = here.step_seconds if not isinstance(here, str) else 0.0
    points = [_point(found, step) for found in grid.points]
    there = {name for point in points for name in point.get("parts", ())}
    colours = {name.replace("_", "-"): tint for name, tint in COLOURS.items() if name.replace("_", "-") in there}
    known = [point["value"] for point in points if point["value"] is not None]
    span = f", from {si(min(known), 's')} to {si(max(known), 's')}" if known else ""
    labels = ", ".join(axis["label"] for axis in axes)
    alt = f"Sliders over {labels}: {len(points)} simulated steps{span}; as it is {si(step, 's')}."
    caption = "Lines: each slider from end to end, the others where they stand; the ring is where it is."
    content = {"axes": axes, "points": points, "base": base, "measure": "time of a step", "seconds": True}
    content |= {"log": "times what it is", "names": ("as it is", "chosen"), "back": "As it is"}
    return Chart("choice", alt, caption, content | {"colours": colours, "series": SERIES})


def _place(sizes: Sequence[int], at: Sequence[int]) -> int:
    """The number of a point, the last axis fastest."""
    return sum(place * prod(sizes[number + 1 :]) for number, place in enumerate(at))


def _point(found: Totals | str, step: float) -> dict[str, Any]:
    if isinstance(found, str):
        return {"value": None, "reason": found}
    parts = {name.replace("_", "-"): float(f"{spent:.6g}") for name, spent in found.breakdown.items() if spent > 0}
    facts = [("step", si(found.step_seconds, "s")), ("change", percent(found.step_seconds / step - 1) if step else "")]
    facts += [("MFU", f"{found.mfu:.1%}")] if found.mfu is not None else []
    facts += [("tokens/s", si(found.tokens_per_second, "/s"))]
    busy = max(found.links, key=lambda row: row.max_utilisation, default=None)
    facts += [("busiest link", f"{busy.kind}, {busy.max_utilisation:.0%}")] if busy else []
    return {"value": found.step_seconds, "text": si(found.step_seconds, "s"), "facts": facts, "parts": parts}
