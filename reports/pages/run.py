"""Files of one run: JSON, CSV, plots and report."""

from __future__ import annotations

from ...hardware.machine import Machine
from ...workloads.model.model import Model
from ...workloads.results.run import Run
from ..content.inputs import inputs
from ..content.sections import Picture, Section
from ..content.steps import answer, bottleneck_section, breakdown_section, links_section
from ..plots import runs as plots
from .html_page import write_report
from .output_folder import Folder, all_or_nothing


@all_or_nothing
def write_run(folder: Folder, run: Run, machine: Machine, model: Model, command: str, run_file: str = "") -> None:
    """Write ``run.json``, ``trace.csv``, ``links.csv``, plots, ``report.html``, and the run file ``run.toml`` that repeats it."""
    totals = run.summary()
    folder.text("run.json", run.to_json() + "\n")
    if run_file:
        folder.text("run.toml", run_file)
    folder.frame("trace.csv", run.to_frame())
    folder.frame("links.csv", run.links_frame())
    step = folder.figure("breakdown", plots.breakdown({totals["model"]: totals}, "model"))
    memory = folder.figure("memory", plots.memory({totals["model"]: totals["memory_per_rank_bytes"]}, "model"))
    sections = [
        breakdown_section(totals, [Picture(step, "One step, stacked by phase and category.")]),
        *_expert_load(folder, run),
        Section("Memory", figures=[Picture(memory, "Bytes of the fullest rank against its capacity.")]),
        links_section(totals),
        *inputs(machine, model, run.plan),
    ]
    if found := totals.get("bottleneck"):
        sections.insert(1, bottleneck_section(found))
    title = f"{totals['model']} on {totals['machine']}"
    write_report(folder, title, answer(totals), sections, [command], totals["warnings"])


def _expert_load(folder: Folder, run: Run) -> list[Section]:
    """Tokens of each rank's experts; nothing of a model without."""
    if not run.expert_load:
        return []
    load = folder.figure("expert_load", plots.expert_load({f"balancer {run.plan['balancer']}": run.expert_load}))
    about = f"Router {run.plan['router']}: tokens wanted and carried by each rank of one group, in the first layer."
    return [Section("Expert load", figures=[Picture(load, about)])]
