"""The story of a training over MPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....hardware.units import si
from ...content.sections import Section
from ...content.trainings import answer, sections
from ...content.words import shown
from ..story import Chart, Fact, Story, StoryPart
from .charts import SECONDS, axis, curves

MOST_POINTS = 2_000
"""Steps that a curve shows; of more every second, third, …"""


def story(found: Mapping[str, Any]) -> Story:
    """How the loss went, what steps took, how level experts were."""
    losses, times = found["loss"], found["step_seconds"]
    first, *others = sections(found)
    charts = [_loss(losses, found["entropy"]), _times(times)] if losses else []
    parts = [StoryPart(first, charts)]
    for each in others:
        levels = found["load_balance"].get("max_over_mean_by_step")
        parts.append(StoryPart(each, [_balance(levels)] if levels else []))
    asked = [(key, shown(value)) for key, value in found["plan"].items() if value is not None]
    facts = [
        Fact(
            "Loss",
            f"{losses[-1]:.3f}" if losses else "none",
            f"after {found['steps']:,} steps, from {losses[0]:.3f}" if losses else "",
        ),
        Fact("Time", si(found["median_step_seconds"], "s"), "a step, the median"),
        Fact("Tokens", si(found["tokens_per_second"], "/s"), f"on {found['ranks']:,} ranks"),
        Fact("Seen", si(found["tokens"], "tokens", 3), found["data"]),
    ]
    return Story(
        kind="a training",
        title=f"{found['model']}: a training",
        answer=answer(found),
        facts=facts,
        parts=parts,
        sources=[Section("Plan", f"On {found['machine']}.", ("option", "value"), asked, 2)],
        warnings=found["warnings"],
        summary=found,
    )


def _rows(values: list[float], name: str, text: str, unit: str = "") -> list[dict[str, Any]]:
    stride = max(1, len(values) // MOST_POINTS)
    return [
        {
            "series": name,
            "x": at + 1,
            "y": values[at],
            "text": f"step {at + 1}: {text} {si(values[at], unit) if unit else format(values[at], '.4f')}",
        }
        for at in range(0, len(values), stride)
    ]


def _loss(losses: list[float], entropy: float | None) -> Chart:
    rows = _rows(losses, "loss", "loss")
    if entropy is not None:
        text = f"entropy of the data, {entropy:.4f}"
        rows += [{"series": "entropy of the data", "x": at, "y": entropy, "text": text} for at in (1, len(losses))]
    alt = f"Loss over {len(losses):,} steps, from {losses[0]:.3f} to {losses[-1]:.3f} nats a word."
    y = {"scale": {"zero": False}, "axis": axis("loss, nats a word")}
    return curves(rows, alt, "", {"axis": axis("step")}, y, points=len(losses) <= 60)


def _times(times: list[float]) -> Chart:
    alt = f"Time of each step, from {si(min(times), 's')} to {si(max(times), 's')}."
    rows = _rows(times, "time of a step", "", "s")
    return curves(
        rows, alt, "", {"axis": axis("step")}, {"axis": axis("time of a step", SECONDS)}, points=len(times) <= 60
    )


def _balance(levels: list[float]) -> Chart:
    rows = _rows(levels, "load", "fullest rank over the mean")
    alt = f"Load of the fullest rank over the mean in each step, from {levels[0]:.3f} to {levels[-1]:.3f}."
    y = {"scale": {"zero": False}, "axis": axis("fullest rank over the mean")}
    return curves(rows, alt, "Of the worst layer.", {"axis": axis("step")}, y, points=len(levels) <= 60)
