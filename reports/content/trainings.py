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


PREDICTED = (
    "Steps of this job, simulated with the loads that it recorded. Error: (predicted - measured) / measured of each step, but"
    " for the first {left}, in which connections are made and memory is touched. Drawing batches, which no schedule has, took"
    " {data:.1%} of the measured time."
)


def predicted_section(found: Mapping[str, Any]) -> Section:
    """How far the predicted steps are from the measured ones; ``found`` is the plain data of a predicted training."""
    step, errors = found["step"], found["errors"]
    worst = errors["worst"] or {"name": "", "relative_error": None}
    rows = [
        ("step predicted, mean", si(step["predicted_seconds"], "s")),
        ("step measured, mean", si(step["measured_seconds"], "s")),
        ("measured steps vary by", _share(step["measured_variation"])),
        ("mean error", _signed(errors["bias"])),
        ("mean size of errors", _share(errors["mape"])),
        (f"worst error, {worst['name']}" if errors["worst"] else "worst error", _signed(worst["relative_error"])),
        ("steps counted", f"{errors['count']:,}"),
    ]
    text = PREDICTED.format(left=found["left_out"], data=found["data_share"])
    measured = len(found["fitted_constants"])
    basis = (
        f"{measured} constants of {found['machine']} that were measured"
        if measured
        else "no constant that was measured"
    )
    return Section("Steps, predicted and measured", f"{text} The prediction rests on {basis}.", ("", ""), rows)


def _signed(error: float | None) -> str:
    return "-" if error is None else f"{error:+.1%}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


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
