"""Files of a campaign: JSON, a line for each seed, plots and report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...hardware.machine import Machine
from ...workloads.model.model import Model
from ..content.campaigns import answer, sections
from ..content.inputs import inputs
from ..content.sections import Picture
from ..plots import campaigns as plots
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from ...sim.campaign.campaign import Campaign


@all_or_nothing
def write_campaign(folder: Folder, found: Campaign, machine: Machine, model: Model, command: str) -> None:
    """Write ``campaign.json``, ``seeds.csv``, ``spans.csv`` of the median seed's first days, plots and ``report.html``.

    Machine and model stand beside them.
    """
    import pandas as pd

    summary = found.summary()
    folder.json("campaign.json", summary)
    folder.inputs(machine, model)
    rows = [{**each, **each["ledger"]} for each in summary["seeds"]]
    folder.frame("seeds.csv", pd.DataFrame(rows).drop(columns="ledger"))
    spans = found.days().spans
    folder.frame("spans.csv", pd.DataFrame(spans, columns=["start", "end", "entry"]))
    seed = f"seed {summary['ledger_seed']}"
    pictures = {
        "waterfall": (plots.waterfall(summary["ledger"], f"From work to wall clock, {seed}"), "What each entry adds."),
        "gantt": (plots.gantt(spans, f"What the job does when, {seed}"), "The first faults of the campaign."),
        "power": (plots.power(spans, summary["watts"], f"Power, {seed}"), "The whole site, its building included."),
    }
    caption = "Three steps and a checkpoint: how far the power of the site swings."
    pictures["swings"] = (plots.swings(found.swings, "Power of some steps and a checkpoint"), caption)
    drawn = [Picture(folder.figure(name, figure), caption) for name, (figure, caption) in pictures.items()]
    first, *others = sections(summary)
    title = f"{summary['model']} on {summary['machine']}: a campaign"
    parts = [replace(first, figures=drawn), *others, *inputs(machine, model, found.run.plan)]
    write_report(folder, title, answer(summary), parts, [command], summary["warnings"])
