"""The story of a Run, simulated or executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....hardware.errors import InputError
from ....hardware.units import si
from ....workloads.results.run import Run
from ...content.inputs import inputs
from ...content.sections import Section
from ...content.steps import answer, bottleneck_text, breakdown_section
from ...content.words import percent, shown
from ..story import Chart, Fact, Story, StoryPart
from .charts import SECONDS, SHARE, axis, bars, curves, memory, stacked
from .timeline import timeline


def story(totals: Mapping[str, Any], run: Run | None = None, choice: Chart | None = None) -> Story:
    """What a summary says, and the Run that it is of where that was saved as well; ``choice`` are points behind sliders."""
    parts = [breakdown_part(totals)]
    if choice:
        parts.insert(0, StoryPart(Section("What if?", WHAT_IF), [choice]))
    if found := totals.get("bottleneck"):
        parts.append(_bottleneck(found, totals["step_seconds"]))
    if run and (drawn := timeline(run.trace)):
        parts.append(StoryPart(Section("Timeline", "What each stream does when."), [drawn]))
    if run and run.expert_load and any(run.expert_load.values()):
        parts.append(_experts(run.expert_load, str(run.plan.get("router", ""))))
    if len(totals["each_step_seconds"]) > 1:
        parts.append(_steps(totals["each_step_seconds"]))
    parts += [_memory(totals["memory_per_rank_bytes"]), _links(totals["links"])]
    return Story(
        kind="a measured run" if "measured" in totals else "a simulated run",
        title=f"{totals['model']} on {totals['machine']}",
        answer=answer(dict(totals)),
        facts=facts(totals),
        parts=parts,
        sources=_sources(totals, run),
        warnings=totals["warnings"],
        summary=totals,
    )


WHAT_IF = (
    "Every position of the sliders is a step that was simulated, with the links, the arithmetic or the jitter of this machine"
    " so many times what they are; nothing is interpolated."
)


def facts(totals: Mapping[str, Any]) -> list[Fact]:
    """Time, MFU, what limits it, and whether it fits."""
    held = totals["memory_per_rank_bytes"]
    low, high = totals.get("step_seconds_low"), totals.get("step_seconds_high")
    near = f"nine of ten measured steps between {si(low, 's', 3)} and {si(high, 's', 3)}" if low and high else "a step"
    told = [Fact("Time", si(totals["step_seconds"], "s"), near)]
    if "mfu" in totals:
        told.append(Fact("MFU", f"{totals['mfu']:.1%}", f"HFU {totals['hfu']:.1%}"))
    else:
        told.append(Fact("Of peak", f"{totals['peak_fraction']:.1%}"))
    told.append(limit(totals))
    full = f"{si(held['total'], 'B', 3)} of {si(held['capacity'], 'B', 3)}"
    told.append(Fact("Memory", "fits" if totals["fits"] else "does not fit", full, bool(totals["fits"])))
    told.append(Fact("Tokens", si(totals["tokens_per_second"], "/s"), f"on {totals['ranks']:,} ranks"))
    return told


def limit(totals: Mapping[str, Any]) -> Fact:
    """What limits a step: the level of links that was found to, where it was looked for; else where most of it goes."""
    largest = max(totals["breakdown"], key=lambda name: totals["breakdown"][name])
    share = f"{totals['breakdown'][largest] / totals['step_seconds']:.0%} of the step is {largest.replace('_', ' ')}"
    found = totals.get("bottleneck")
    if not found or not found["changes"]:
        return Fact("Bottleneck", largest.replace("_", " "), share)
    best = found["changes"][0]
    if best["gain"] <= 0:
        return Fact("Bottleneck", largest.replace("_", " "), f"{share}; no change that was simulated shortens it")
    return Fact(
        "Bottleneck", largest.replace("_", " "), f"{share}; most would help: {best['change']}, {percent(-best['gain'])}"
    )


def breakdown_part(totals: Mapping[str, Any]) -> StoryPart:
    """Where the time goes, by phase and category."""
    rows = [
        {"name": phase, "category": category.replace("_", "-"), "amount": seconds, "order": order}
        | {"text": si(seconds, "s"), "share": f"{seconds / totals['step_seconds']:.1%} of the step"}
        for phase, categories in totals["breakdown_by_phase"].items()
        for order, (category, seconds) in enumerate(categories.items())
        if seconds > 0
    ]
    told = ", ".join(
        f"{name.replace('_', ' ')} {seconds / totals['step_seconds']:.1%}"
        for name, seconds in sorted(totals["breakdown"].items(), key=lambda pair: -pair[1])
        if seconds > 0
    )
    alt = f"Bars of the exposed seconds of each phase by category. Of the step: {told}."
    drawn = stacked(rows, alt, "A click on the legend shows one category by itself.", "exposed seconds", "")
    return StoryPart(breakdown_section(dict(totals), ()), [drawn])


def _bottleneck(found: Mapping[str, Any], step: float) -> StoryPart:
    texts = [(each["change"], si(each["step_seconds"], "s"), percent(-each["gain"])) for each in found["changes"]]
    rows = [
        {
            "name": each["change"],
            "amount": -each["gain"],
            "text": f"{si(each['step_seconds'], 's')}, {percent(-each['gain'])}",
        }
        for each in found["changes"]
    ]
    told = "; ".join(f"{name} {change}" for name, _, change in texts)
    alt = f"Bars of the change of a step of {si(step, 's')} with a better machine. {told}."
    drawn = bars(rows, alt, "Each change was simulated.", "change of the step", "change", SHARE)
    columns = ("change", "step", "change of the step")
    return StoryPart(Section("What would help", bottleneck_text(found) + ".", columns, texts), [drawn])


def _experts(loads: Mapping[str, list[float]], router: str) -> StoryPart:
    rows = [
        {"series": name, "x": at + 1, "y": load, "text": f"rank {at + 1} of {len(values)}: {load:.3f} x the mean"}
        for name, values in loads.items()
        for at, load in enumerate(values)
    ]
    worst = {name: max(values) for name, values in loads.items() if values}
    told = ", ".join(f"{name} {most:.3f}" for name, most in worst.items())
    alt = f"Load of the ranks of one expert-parallel group over the mean, in falling order. The fullest: {told}."
    x, y = {"axis": axis("ranks, the fullest first")}, {"axis": axis("load over the mean")}
    drawn = curves(rows, alt, "In the first layer, before and after balancing.", x, y, points=False)
    return StoryPart(Section("Expert load", f"Router {router}." if router else ""), [drawn])


def _steps(seconds: list[float]) -> StoryPart:
    rows = [
        {"series": "steps", "x": at, "y": each, "text": f"step {at}: {si(each, 's')}"}
        for at, each in enumerate(seconds)
    ]
    alt = f"Time of each of {len(seconds):,} steps, from {si(min(seconds), 's')} to {si(max(seconds), 's')}."
    y = {"axis": axis("time of a step", SECONDS), "scale": {"zero": False}}
    return StoryPart(Section("Step by step"), [curves(rows, alt, "", {"axis": axis("step")}, y)])


def _memory(parts: Mapping[str, float]) -> StoryPart:
    rows = [(part, si(size, "B", 3), f"{size / parts['capacity']:.1%}") for part, size in parts.items()]
    return StoryPart(Section("Memory", "", ("part", "bytes", "of capacity"), rows), [memory(parts, "the fullest rank")])


def _links(links: list[dict[str, Any]]) -> StoryPart:
    texts = [
        (row["kind"], row.get("level", ""), f"{row['links']:,}", si(row["capacity_bytes_per_second"], "B/s"))
        + (si(row["bytes_per_step"], "B"), f"{row['mean_utilisation']:.1%}", f"{row['max_utilisation']:.1%}")
        for row in links
    ]
    rows = [
        {"name": row["kind"], "amount": row["max_utilisation"]}
        | {
            "text": f"{row['max_utilisation']:.1%} of the step; {row['mean_utilisation']:.1%} in the mean of {row['links']:,}"
        }
        for row in links
    ]
    told = ", ".join(f"{row['name']} {row['amount']:.1%}" for row in rows) or "none is used"
    drawn = bars(
        rows, f"Share of the step in which the busiest link of each kind is busy: {told}.", "", "busy", "link", SHARE
    )
    columns = ("kind", "level", "links", "capacity", "bytes a step", "mean use", "most used")
    return StoryPart(Section("Links", "", columns, texts, 2), [drawn] if rows else [])


def _sources(totals: Mapping[str, Any], run: Run | None) -> list[Section]:
    """Machine, model and plan with their sources, as far as the file has them."""
    why = "Their numbers and sources are not in this file: a run that is written with -o by this version has them."
    if run and run.inputs:
        try:
            return inputs(run.inputs.machine, run.inputs.model, run.plan)
        except InputError as wrong:
            why = f"Their numbers cannot be read: {wrong}."
    rows = [(key, shown(value)) for key, value in (run.plan if run else {}).items() if value is not None]
    text = f"Machine {totals['machine']}, model {totals['model']}. {why}"
    return [Section("Plan", text, ("option", "value"), rows, 2)]
