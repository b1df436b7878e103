"""An object as HTML: what it comes to in a sentence, then its tables. It needs no scripts, no network and no styles of a page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache, singledispatch
from pathlib import Path
from typing import Any

from ...hardware.machine import Machine
from ...sim.campaign.campaign import Campaign
from ...sim.planning.search import Search
from ...sim.studies.scaling import Study
from ...workloads.model.model import Model
from ...workloads.plan.plan import Plan
from ...workloads.results.run import Run
from ...workloads.results.training_run import TrainingRun
from ..content import campaigns, plans, scaling, steps, trainings
from ..content.colours import COLOURS
from ..content.inputs import machine_section, model_rows, plan_section
from ..content.sections import Section
from ..content.words import shown

MOST_PLANS = 10
"""Plans of a search that are listed."""

OPEN = 14
"""Rows up to which a table stands open; longer ones are folded."""


@dataclass(frozen=True)
class Card:
    """What is shown of an object.

    ``shares`` are drawn as one bar: (name, share, colour); ``picture`` is an address that holds the whole picture, of which
    ``lead`` says what it shows.
    """

    title: str
    lead: str
    sections: Iterable[Section]
    shares: Iterable[tuple[str, float, str]] = ()
    warnings: Iterable[str] = ()
    picture: str = ""


def html(what: object) -> str:
    """The HTML of an object."""
    return str(_template().render(card=card(what), open=OPEN))


@singledispatch
def card(what: object) -> Card:
    """What is shown of an object; raises ``TypeError`` for one that nothing is known of."""
    raise TypeError(f"nothing shows a {type(what).__name__}")


@card.register
def _run(run: Run) -> Card:
    totals = run.summary()
    found = [steps.breakdown_section(totals, ())]
    if limits := totals.get("bottleneck"):
        found.append(steps.bottleneck_section(limits))
    found += [steps.memory_section(totals), steps.links_section(totals), plan_section(run.plan)]
    shares = [
        (category.replace("_", "-"), seconds / totals["step_seconds"], COLOURS[category])
        for category, seconds in totals["breakdown"].items()
        if seconds > 0
    ]
    title = f"{totals['model']} on {totals['machine']}"
    return Card(title, steps.answer(totals), found, shares, totals["warnings"])


@card.register
def _scaling(study: Study) -> Card:
    from ..plots.draw import as_png
    from ..plots.scaling import scaling as drawn

    rows = Section("Points", scaling.grown(study), scaling.study_columns(study), scaling.study_rows(study), 2)
    picture = "data:image/png;base64," + b64encode(as_png(drawn(study))).decode()
    warnings = dict.fromkeys(warning for point in study.points for warning in point.summary["warnings"])
    return Card(scaling.study_title(study), scaling.answer(study), [rows], warnings=warnings, picture=picture)


@card.register
def _search(search: Search) -> Card:
    found = search.plain()
    title = f"Plans of {found['model']} on {found['ranks']:,} ranks of {found['machine']}"
    listed = found["plans"][:MOST_PLANS]
    text = f"The first {len(listed)} of {found['ranked']:,} that fit."
    best = Section("Plans", text, plans.COLUMNS, [plans.plan_row(each) for each in listed], 3)
    return Card(title, plans.sentence(found) if listed else "", [best])


@card.register
def _campaign(campaign: Campaign) -> Card:
    found = campaign.summary()
    title = f"Campaign of {found['model']} on {found['machine']}"
    return Card(title, campaigns.answer(found), campaigns.sections(found), warnings=campaign.warnings)


@card.register
def _training(training: TrainingRun) -> Card:
    found = training.summary()
    return Card("Training", trainings.answer(found), trainings.sections(found), warnings=training.warnings)


@card.register
def _machine(machine: Machine) -> Card:
    section = machine_section(machine)
    return Card(section.title, section.text, [Section("Numbers", "", section.columns, section.rows, 3)])


@card.register
def _model(model: Model) -> Card:
    rows = Section("Numbers", "", ("key", "value", "source"), model_rows(model), 3)
    return Card(f"Model: {model.name}", model.description, [rows])


@card.register
def _plan(plan: Plan) -> Card:
    every: Mapping[str, Any] = plan.to_plain()
    usual = {each.name: each.default for each in fields(plan)}
    chosen = {key: value for key, value in every.items() if value != usual[key]}
    lead = "; ".join(f"{key} {shown(value)}" for key, value in chosen.items())
    return Card("Plan", lead, [replace(plan_section(every), title="All options")])


@lru_cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    return Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("card.html.j2")
