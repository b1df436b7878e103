"""The story of a plan search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....hardware.units import si
from ....workloads.mesh.mesh_text import mesh_text
from ...content.colours import SERIES
from ...content.plans import COLUMNS, best_plan, change_rows, machine_rows, narrowing, options_text, plan_row, sentence
from ...content.sections import Section
from ...content.words import percent, shown
from ..story import Chart, Fact, Story, StoryPart
from .charts import BYTES, SECONDS, SHARE, axis, bars, coloured, tooltip

FRONT, OTHER, FORMULA = "on the front", "simulated", "by the estimate"
PLAN_COLUMNS = (*COLUMNS, "what")


def story(found: Mapping[str, Any]) -> Story:
    """A search's best plans, its front, what limits the best, and what would change it."""
    plain = dict(found)
    parts = [_plans(plain)]
    if found["sensitivity"]:
        parts.append(_machine(plain))
    if found["changes"]:
        columns = ("option", "now", "instead", "step s", "gain", "")
        parts.append(StoryPart(Section("One choice otherwise", "", columns, change_rows(plain), 3), filtered=True))
    why = [(text, f"{count:,}") for text, count in found["pruned"].items()]
    parts.append(
        StoryPart(
            Section("Pruned", "Plans that are none, by the reason that was met first.", ("because of", "plans"), why)
        )
    )
    warnings = ["the search was interrupted: this is what it knew"] if found["interrupted"] else []
    asked = {key: found[key] for key in ("machine", "model", "ranks", "ranks_per_node", "global_batch", "seq_len")}
    rows = [(key, shown(value)) for key, value in {**asked, **found["fixed"]}.items() if value is not None]
    return Story(
        kind="a plan search",
        title=f"Plans of {found['model']} on {found['ranks']:,} ranks of {found['machine']}",
        answer=f"{best_plan(plain)} {found['enumerated']:,} plans, {found['ranked']:,} ranked by formula, the best simulated.",
        facts=_facts(plain),
        parts=parts,
        sources=[Section("What was asked", "All else was searched.", ("what", "value"), rows, 2)],
        warnings=[*warnings, *([narrowing(plain)] if found["narrowed"] else [])],
        commands=[each["command"] for each in found["plans"][:3]],
        summary=found,
    )


def _facts(found: dict[str, Any]) -> list[Fact]:
    if not found["plans"]:
        return [Fact("Memory", "no plan fits", f"{si(found['memory_bytes'], 'B', 3)} a rank", False)]
    best, limits = found["plans"][0], found["limits"] or {"breakdown": {}}
    total = best["memory_per_rank_bytes"]["total"]
    told = [Fact("Best step", si(best["step_seconds"], "s"), "simulated" if best["simulated"] else "by the estimate")]
    told.append(Fact("Best plan", mesh_text(best["mesh"]), options_text(best)))
    if limits["breakdown"]:
        largest = max(limits["breakdown"], key=lambda name: limits["breakdown"][name])
        share = f"{limits['breakdown'][largest]:.0%} of its step"
        told.append(Fact("Bottleneck", largest.replace("_", " "), share))
    full = f"{si(total, 'B', 3)} of {si(found['memory_bytes'], 'B', 3)}"
    told.append(
        Fact(
            "Memory", "fits" if total <= found["memory_bytes"] else "does not fit", full, total <= found["memory_bytes"]
        )
    )
    if found["margin_to_next_mesh"] is not None:
        told.append(Fact("Next mesh", percent(found["margin_to_next_mesh"]), "longer"))
    return told


def _plans(found: dict[str, Any]) -> StoryPart:
    """All plans that the file has, each once, over time and memory."""
    every: dict[str, dict[str, Any]] = {}
    for plan in [*found["plans"], *found["front"], *found["by_mesh"]]:
        every.setdefault(plan["command"], plan)
    front = {plan["command"] for plan in found["front"]}
    rows: list[dict[str, Any]] = []
    texts: list[tuple[str, ...]] = []
    for command, plan in every.items():
        what = FRONT if command in front else OTHER if plan["simulated"] else FORMULA
        row = plan_row(plan)
        texts.append((*row, what))
        rows.append(
            {
                "row": len(rows),
                "bytes": plan["memory_per_rank_bytes"]["total"],
                "seconds": plan["step_seconds"],
                "what": what,
            }
            | {"mesh": row[0], "placement": row[1], "options": row[2], "size": f"{row[5]} GB"}
            | {"time": f"{si(plan['step_seconds'], 's')}{'' if plan['simulated'] else ' by the estimate'}"}
        )
    colours = {FRONT: SERIES[1], OTHER: SERIES[0], FORMULA: "#9aa4ad"}
    log = {"type": "log", "nice": False, "padding": 12}
    spec: dict[str, Any] = {
        "height": 330,
        "layer": [
            {
                "transform": [{"filter": f"datum.what == '{FRONT}'"}],
                "mark": {
                    "type": "line",
                    "interpolate": "step-after",
                    "strokeWidth": 1,
                    "color": SERIES[1],
                    "opacity": 0.6,
                },
                "encoding": {"order": {"field": "bytes"}},
            },
            {
                "params": [{"name": "picked", "select": {"type": "point", "fields": ["what"]}, "bind": "legend"}],
                "mark": {"type": "point", "filled": True, "size": 70},
                "encoding": {
                    "color": coloured(colours, "what"),
                    "opacity": {"condition": {"param": "picked", "value": 0.85}, "value": 0.1},
                    "tooltip": tooltip(
                        mesh="mesh", placement="placement", options="options", step="time", memory="size"
                    ),
                },
            },
        ],
        "encoding": {
            "x": {
                "field": "bytes",
                "type": "quantitative",
                "scale": log,
                "axis": axis("memory of the fullest rank", BYTES),
            },
            "y": {"field": "seconds", "type": "quantitative", "scale": log, "axis": axis("time of a step", SECONDS)},
        },
    }
    alt = f"{len(rows)} plans by the memory that they need and the time of their step; {len(front)} are on the front. "
    if every:
        least = min(every.values(), key=lambda plan: plan["memory_per_rank_bytes"]["total"])
        alt += f"The fastest: {plan_row(found['plans'][0])[0]}; the one with the least memory: {plan_row(least)[0]}."
    memory = si(found["memory_bytes"], "B", 3)
    caption = f"No plan beats those of the front in both. A rank has {memory}. Filter the table: this follows."
    drawn = Chart("plot", alt, caption, {"spec": spec, "rows": rows})
    text = sentence(found) if found["plans"] else ""
    return StoryPart(Section("Plans: time against memory", text, PLAN_COLUMNS, texts, 3), [drawn], filtered=True)


def _machine(found: dict[str, Any]) -> StoryPart:
    rows = [
        {
            "name": each["part"],
            "amount": each["gain"],
            "text": f"{each['gain']:.1%} of the step, {each['note']}".rstrip(", "),
        }
        for each in found["sensitivity"]
    ]
    told = "; ".join(f"{row['name']} {row['text']}" for row in rows)
    alt = f"Share of the best plan's step that is saved where a part of the machine is twice as good: {told}."
    drawn = bars(rows, alt, "Each was simulated.", "share of the step saved", "part", SHARE)
    return StoryPart(Section("Twice as good", "", ("part", "step s", "gain", "with"), machine_rows(found), 1), [drawn])
