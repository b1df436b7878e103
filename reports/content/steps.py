"""Where a step's time goes, as a section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...hardware.units import si
from ...workloads.mesh.mesh_text import mesh_text
from .sections import Picture, Section
from .words import dropped, of_peak, percent


def breakdown_section(summary: dict[str, Any], figures: Sequence[Picture]) -> Section:
    """Exposed seconds by category."""
    step = summary["step_seconds"]
    rows = [
        (category.replace("_", "-"), f"{s:.4g}", f"{s / step:.1%}")
        for category, s in summary["breakdown"].items()
        if s > 0
    ]
    text = (
        f"Step {si(step, 's')}, {si(summary['flops_per_second'], 'FLOP/s')}, {of_peak(summary)}."
        f"{dropped(summary)}"
        " Seconds are means over ranks. Communication that computing hides is left out; imbalance is waiting for slower ranks."
    )
    return Section("Where the time goes", text, ("category", "seconds", "share"), rows, figures=figures)


def bottleneck_text(found: Mapping[str, Any]) -> str:
    """What limits a step, in a sentence."""
    exposed = f"{si(found['exposed_seconds'], 's')} of communication are exposed"
    if found["level"] is None:
        return f"{exposed}; no faster links would shorten the step"
    return (
        f"{exposed}; of all links, faster ones of {found['level']} would shorten them most"
        f" (the busiest is used {found['utilisation']:.0%} of the step)"
    )


def answer(totals: dict[str, Any]) -> str:
    """How fast it is and how full, and on what."""
    memory, nodes = totals["memory_per_rank_bytes"], totals["nodes"]
    return (
        f"A step takes {si(totals['step_seconds'], 's')}: {si(totals['tokens_per_second'], 'tokens/s')},"
        f" {si(totals['flops_per_second'], 'FLOP/s')}, {of_peak(totals)}. The fullest rank holds"
        f" {si(memory['total'], 'B', 3)} of {si(memory['capacity'], 'B', 3)}. {totals['ranks']:,} ranks"
        f" ({mesh_text(totals['mesh'])}) on {nodes:,} node{'s' * (nodes > 1)}, {_how(totals)}."
    )


def _how(totals: dict[str, Any]) -> str:
    """Whether a Run was simulated or measured, and how."""
    if "measured" not in totals:
        return f"simulated; network depth {totals['network']['depth']}"
    made = totals["measured"]
    hosts = len(made["hosts"])
    return f"measured over MPI ({made['library']}) on {hosts} host{'s' * (hosts > 1)}; compute {made['compute']}"


def bottleneck_section(found: Mapping[str, Any]) -> Section:
    """What limits a step, and what would help."""
    rows = [(each["change"], si(each["step_seconds"], "s"), percent(-each["gain"])) for each in found["changes"]]
    return Section("Bottleneck", bottleneck_text(found) + ".", ("change", "step", "change of the step"), rows)


def links_section(totals: Mapping[str, Any]) -> Section:
    """How much each kind of link carries and is used."""
    rows = [
        (row["kind"], f"{row['links']:,}", si(row["bytes_per_step"], "B"))
        + (f"{row['mean_utilisation']:.1%}", f"{row['max_utilisation']:.1%}")
        for row in totals["links"]
    ]
    return Section("Links", "", ("kind", "links", "bytes a step", "mean use", "most used"), rows)


def memory_section(totals: Mapping[str, Any]) -> Section:
    """What the fullest rank holds."""
    held = totals["memory_per_rank_bytes"]
    rows = [(part, si(size, "B"), f"{size / held['capacity']:.1%}") for part, size in held.items()]
    return Section("Memory of the fullest rank", "", ("", "bytes", "of capacity"), rows)
