"""Values as people read them: yes and no, meshes as the command line takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...hardware.units import si


def count_text(number: float, digits: int = 3) -> str:
    """A number of parameters as the field writes it: ``1.93 T``, ``122 B``, ``4.98 M``."""
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.{digits}g} {name}"
    return f"{number:g}"


def shown(value: Any) -> str:
    """A value of a plan or a claim as text: yes and no, ``axis=size`` of a mesh, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={shown(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return str(value)


def of_peak(totals: Mapping[str, Any]) -> str:
    """Model and hardware FLOPs over the peak; of runs that were written before both were told, what they have."""
    if "mfu" not in totals:
        return f"{totals['peak_fraction']:.1%} of peak"
    return f"MFU {totals['mfu']:.1%}, HFU {totals['hfu']:.1%}"


def dropped(totals: Mapping[str, Any]) -> str:
    """A sentence on tokens that experts dropped; nothing where there are none."""
    rate = totals.get("dropped_tokens_per_second", 0.0)
    return f" Experts drop {si(rate, 'tokens/s')} more, which are not trained." if rate else ""


def percent(error: float) -> str:
    """A relative error as text; what rounds to nothing has no sign."""
    return f"{round(error, 4) + 0.0:+.2%}"
