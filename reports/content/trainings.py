"""A training in words and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...hardware.units import si
from ...workloads.mesh.mesh_text import mesh_text
from .sections import Section

MILESTONES = 10
"""Steps that a table lists."""


def answer(found: Mapping[str, Any]) -> str:
    """What was trained, how far, how fast."""
    losses = found["loss"]
    if not losses:
        return "No step was trained."
    entropy = "" if found["entropy"] is None else f"; the data's entropy is {found['entropy']:.3f}"
    return (
        f"After {found['steps']:,} steps of {found['tokens_per_step']:,} tokens the loss is {losses[-1]:.3f} nats a word, from"
        f" {losses[0]:.3f}{entropy}. A step takes {si(found['median_step_seconds'], 's')}:"
        f" {si(found['tokens_per_second'], 'tokens/s')} on {found['ranks']} ranks ({mesh_text(found['mesh'])})."
    )


def sections(found: Mapping[str, Any]) -> list[Section]:
    """The course of the loss, and how level experts were."""
    losses = found["loss"]
    steps = sorted({round((len(losses) - 1) * at / MILESTONES) for at in range(MILESTONES + 1)}) if losses else []
    rows = [
        (f"{at + 1:,}", f"{losses[at]:.4f}", f"{found['gradient_norm'][at]:.3g}", si(found["step_seconds"][at], "s"))
        for at in steps
    ]
    made = [
        Section(
            "Course", f"Data: {found['data']}. Gate: {found['gate']}.", ("step", "loss", "gradient norm", "time"), rows
        )
    ]
    if balance := found["load_balance"]:
        told = [
            ("fullest rank over the mean, wanted", f"{balance['wanted_max_over_mean']:.3f}"),
            ("the same, carried", f"{balance['max_over_mean']:.3f}"),
            ("tokens moved", f"{balance['moved_fraction']:.2%}"),
            ("tokens dropped", f"{balance['dropped_fraction']:.2%}"),
        ]
        made.append(Section("Experts", f"Means over all steps; balancer {found['balancer']}.", ("", "mean"), told))
    return made
