"""The story of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....hardware.units import DAY, HOUR, duration, si
from ....workloads.mesh.mesh_text import mesh_text
from ...content.campaigns import answer, energy, sections
from ...content.colours import ENTRIES, SERIES
from ...content.sections import Section
from ..story import Chart, Fact, Story, StoryPart
from .charts import axis, bars, tooltip


def story(found: Mapping[str, Any]) -> Story:
    """What a training takes with its faults: wall clock, ledger, seeds, checkpoints."""
    first, *others = sections(found)
    wall = found["wall_clock_seconds"]
    lost = {name: seconds for name, seconds in found["ledger"].items() if name != "productive" and seconds > 0}
    worst = max(lost, key=lambda name: lost[name], default="")
    whole = sum(found["ledger"].values())
    facts = [
        Fact(
            "Wall clock",
            duration(wall["median"]),
            f"nine of ten seeds: {duration(wall['p5'])} to {duration(wall['p95'])}",
        ),
        Fact("Goodput", f"{found['goodput']:.1%}", "productive share of the wall clock"),
        Fact(
            "Most is lost to",
            worst.replace("_", " ") or "nothing",
            f"{lost[worst] / whole:.1%} of the wall clock" if worst else "",
        ),
        Fact("Interruptions", f"{found['interruptions']:,}", f"a fault every {duration(found['mtbf_seconds'])}"),
        Fact(
            "Energy",
            energy(found["energy_joules"]),
            f"{found['cost']:,.0f} USD, {found['co2_kilograms'] / 1e3:,.4g} t of CO2",
        ),
    ]
    asked = [("machine", found["machine"]), ("model", found["model"]), ("mesh", mesh_text(found["mesh"]))]
    asked += [("nodes", f"{found['nodes']:,}"), ("steps", f"{found['steps']:,}"), ("policy", str(found["policy"]))]
    return Story(
        kind="a campaign",
        title=f"{found['model']} on {found['machine']}: a campaign",
        answer=answer(found),
        facts=facts,
        parts=[StoryPart(first, [_ledger(found)]), _seeds(found), *map(StoryPart, others)],
        sources=[Section("What was played", "Its step comes from the simulator.", ("what", "value"), asked, 2)],
        warnings=found["warnings"],
        summary=found,
    )


def _ledger(found: Mapping[str, Any]) -> Chart:
    whole = sum(found["ledger"].values())
    rows = [
        {"name": name.replace("_", " "), "amount": seconds / whole, "colour": ENTRIES[name]}
        | {"text": f"{duration(seconds)}, {seconds / whole:.2%}, at {si(found['watts'][name], 'W')}"}
        for name, seconds in found["ledger"].items()
        if seconds > 0
    ]
    told = "; ".join(f"{row['name']} {row['text']}" for row in rows)
    alt = f"What the wall clock of the median seed went to: {told}."
    return bars(
        rows, alt, "Shares of the wall clock.", "share of the wall clock", "entry", "format(datum.value, '.3~p')"
    )


def _seeds(found: Mapping[str, Any]) -> StoryPart:
    """Each seed's wall clock and interruptions."""
    longest = max(each["wall_clock_seconds"] for each in found["seeds"])
    size, unit = (DAY, "days") if longest >= 2 * DAY else (HOUR, "hours")
    texts = [
        (f"{each['seed']}", f"{each['wall_clock_seconds'] / size:,.4g}", f"{each['goodput']:.2%}")
        + (f"{each['interruptions']:,}", f"{each['energy_joules'] / 3.6e9:,.4g}")
        for each in found["seeds"]
    ]
    rows = [
        {"row": at, "x": each["wall_clock_seconds"] / size, "y": each["goodput"]}
        | {"seed": texts[at][0], "wall": f"{texts[at][1]} {unit}", "goodput": texts[at][2], "stops": texts[at][3]}
        for at, each in enumerate(found["seeds"])
    ]
    spec = {
        "height": 240,
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.6, "color": SERIES[0]},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "scale": {"zero": False}, "axis": axis(f"wall clock, {unit}")},
            "y": {"field": "y", "type": "quantitative", "scale": {"zero": False}}
            | {"axis": axis("goodput", "format(datum.value, '.4~p')")},
            "tooltip": tooltip(seed="seed", wall_clock="wall", goodput="goodput", interruptions="stops"),
        },
    }
    wall = found["wall_clock_seconds"]
    alt = (
        f"{len(rows)} seeds by wall clock and goodput: half of them end within {duration(wall['median'])}, nine of ten between"
        f" {duration(wall['p5'])} and {duration(wall['p95'])}."
    )
    drawn = Chart("plot", alt, "A dot is a seed: one course of faults.", {"spec": spec, "rows": rows})
    columns = ("seed", f"wall clock, {unit}", "goodput", "interruptions", "MWh")
    return StoryPart(Section("Seeds", "", columns, texts), [drawn], filtered=True)
