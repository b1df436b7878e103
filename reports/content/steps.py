"""Where a step's time goes, as a section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...hardware.units import si
from .sections import Picture, Section
from .words import dropped, of_peak


def breakdown_section(summary: dict[str, Any], figures: Sequence[Picture]) -> Section:
    """Exposed seconds by category."""
    step = summary["step_seconds"]
    rows = [
        (category.replace("_", "-"), f"{s:.4f}", f"{s / step:.1%}")
        for category, s in summary["breakdown"].items()
        if s > 0
    ]
    text = (
        f"Step {si(step, 's')}, {si(summary['flops_per_second'], 'FLOP/s')}, {of_peak(summary)}."
        f"{dropped(summary)}"
        " Seconds are means over ranks. Communication that computing hides is left out; imbalance is waiting for slower ranks."
    )
    return Section("Where the time goes", text, ("category", "seconds", "share"), rows, figures=figures)
