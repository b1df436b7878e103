"""The story of a scaling study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....hardware.units import si
from ....workloads.mesh.mesh_text import mesh_text
from ...content.colours import SERIES
from ...content.sections import Section
from ...content.words import count_text, shown
from ..story import Chart, Fact, Story, StoryPart
from .charts import SHARE, axis, curves, stacked
from .runs import limit

COLUMNS = ("nodes", "mesh", "parameters", "step", "FLOP/s", "MFU", "tokens/s", "speed-up", "efficiency")


def story(found: Mapping[str, Any]) -> Story:
    """Points of a strong or weak scaling, and where each one's time goes."""
    points = found["points"]
    first, last = points[0], points[-1]
    texts = [
        (
            f"{each['nodes']:,}",
            mesh_text(each["mesh"]),
            count_text(each["parameters"]["total"], 4),
            si(each["step_seconds"], "s"),
        )
        + (si(each["flops_per_second"], "FLOP/s"), f"{each['mfu']:.1%}", si(each["tokens_per_second"], "/s"))
        + (f"{each['speedup']:.2f}", f"{each['efficiency']:.1%}")
        for each in points
    ]
    told = (
        f"From {first['nodes']:,} to {last['nodes']:,} nodes: {last['speedup']:.2f} times as fast,"
        f" {last['efficiency']:.1%} of the ideal {last['nodes'] / first['nodes']:g}."
        f" On {last['nodes']:,} nodes a step takes {si(last['step_seconds'], 's', 3)}."
    )
    fit = all(each["fits"] for each in points)
    facts = [
        Fact("Efficiency", f"{last['efficiency']:.1%}", f"on {last['nodes']:,} nodes, over {first['nodes']:,}"),
        Fact("Time", si(last["step_seconds"], "s"), f"a step on {last['nodes']:,} nodes"),
        Fact("MFU", f"{last['mfu']:.1%}", f"from {first['mfu']:.1%}"),
        limit(last),
        Fact("Memory", "fits" if fit else "does not fit", "at every point" if fit else "at some points", fit),
    ]
    asked = [
        ("machine", found["machine"]),
        ("model", found["model"]),
        ("grows", found["grow"] or "nothing but the nodes"),
    ]
    asked += [(key, shown(value)) for key, value in found["options"].items() if value is not None]
    return Story(
        kind=f"a study of {found['kind']} scaling",
        title=f"{found['kind'].capitalize()} scaling of {found['model']} on {found['machine']}",
        answer=told,
        facts=facts,
        parts=[
            StoryPart(Section("Scaling", "", COLUMNS, texts, 0), [_curve(points)], filtered=True),
            StoryPart(Section("Where the time goes"), [_shares(points)]),
        ],
        sources=[Section("What was asked", "", ("what", "value"), asked, 2)],
        warnings=list(dict.fromkeys(warning for each in points for warning in each["warnings"])),
        summary=found,
    )


def _curve(points: list[Mapping[str, Any]]) -> Chart:
    rows = [
        {"series": "simulated", "x": each["nodes"], "y": each["speedup"], "row": at}
        | {
            "text": f"{each['nodes']:,} nodes: {each['speedup']:.2f} times as fast, {each['efficiency']:.1%} of the ideal"
        }
        for at, each in enumerate(points)
    ]
    ends = (0, len(points) - 1)
    rows += [
        {
            "series": "ideal",
            "x": points[at]["nodes"],
            "y": points[at]["nodes"] / points[0]["nodes"],
            "row": at,
            "text": "ideal",
        }
        for at in ends
    ]
    alt = f"Speed-up over nodes beside the ideal line. {'; '.join(str(row['text']) for row in rows[: len(points)])}."
    log = {"scale": {"type": "log", "base": 2, "nice": False}}
    colours = {"simulated": SERIES[0], "ideal": "#9aa4ad"}
    ticks = {"values": [each["nodes"] for each in points], "labelExpr": "format(datum.value, ',')", "title": "nodes"}
    return curves(rows, alt, "", {**log, "axis": ticks}, {**log, "axis": axis("times as fast")}, colours)


def _shares(points: list[Mapping[str, Any]]) -> Chart:
    rows = [
        {
            "name": f"{each['nodes']:,}",
            "category": name.replace("_", "-"),
            "amount": seconds / each["step_seconds"],
            "order": order,
        }
        | {"text": si(seconds, "s"), "share": f"{seconds / each['step_seconds']:.1%}"}
        for each in points
        for order, (name, seconds) in enumerate(each["breakdown"].items())
        if seconds > 0
    ]
    told = "; ".join(f"{each['nodes']:,} nodes: {limit(each).note.split(';')[0]}" for each in points)
    alt = f"Shares of a step by category at each node count. {told}."
    return stacked(
        rows, alt, "A click on the legend shows one category by itself.", "share of the step", "nodes", SHARE
    )
