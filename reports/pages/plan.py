"""A plan search as tables, plots and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ...workloads.mesh.mesh_text import mesh_text
from ..content.plans import COLUMNS, best_plan, change_rows, machine_rows, narrowing, plan_row, sentence
from ..tables.runs import table
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from rich.console import Console

    from ...sim.planning.question import Question

SHOWN = 12
"""Rows of a list that the terminal shows."""


def show_search(console: Console, found: dict[str, Any]) -> None:
    """What a search found: the best plans, the front, what limits the best, and what would change it."""
    pruned = sum(found["pruned"].values())
    console.print(
        f"[bold]{escape(found['model'])}[/] on [bold]{found['ranks']:,}[/] ranks of [bold]{escape(found['machine'])}[/],"
        f" {found['global_batch']:,} sequences of {found['seq_len']:,} tokens: {found['enumerated']:,} plans of"
        f" {found['meshes_done']:,} meshes, {pruned:,} pruned, {found['ranked']:,} ranked"
        + (" [yellow](interrupted)[/]" if found["interrupted"] else "")
    )
    console.print(f"{found['plans_per_second']:,.0f} plans a second and core in closed form\n")
    if found["narrowed"]:
        console.print(f"[yellow]{narrowing(found)}[/]\n")
    why = [(text, f"{count:,}", f"{count / found['enumerated']:.1%}") for text, count in found["pruned"].items()]
    console.print(table("Pruned", ["because of", "plans", "share"], why[:SHOWN]))
    console.print(table("Best plans", COLUMNS, [plan_row(each) for each in found["plans"][:SHOWN]], 3))
    console.print(table("Time against memory", COLUMNS, [plan_row(each) for each in found["front"][:SHOWN]], 3))
    if found["plans"]:
        console.print(sentence(found) + "\n", markup=False)
    if found["sensitivity"]:
        console.print(table("Twice as good", ("part", "step s", "gain", "with"), machine_rows(found), 1))
        console.print(
            table(
                "One choice otherwise",
                ("option", "now", "instead", "step s", "gain", ""),
                change_rows(found)[:SHOWN],
                3,
            )
        )
    if found["plans"]:
        console.print(found["plans"][0]["command"], soft_wrap=True, markup=False)


@all_or_nothing
def write_search(folder: Folder, found: dict[str, Any], question: Question, command: str) -> None:
    """Write ``plan.json``, machine and model, ``plans.csv``, the plots and ``report.html``."""
    import pandas as pd

    from ..content.inputs import inputs
    from ..content.sections import Picture, Section
    from ..plots import plans as plan_plots
    from .html_page import write_report

    folder.json("plan.json", found)
    folder.inputs(question.machine, question.model)
    rows = [
        {
            "mesh": mesh_text(each["mesh"]),
            "placement": each["placement"],
            **each["options"],
        }
        | {key: each[key] for key in ("step_seconds", "simulated", "closed_form_seconds")}
        | {"memory_bytes": each["memory_per_rank_bytes"]["total"]}
        for each in found["plans"]
    ]
    folder.frame("plans.csv", pd.DataFrame(rows))
    pictures = [
        Picture(folder.figure("front", plan_plots.front(found)), "Plans that no other beats in both time and memory.")
    ]
    bars = []
    if found["sensitivity"]:
        drawn = folder.figure("sensitivity", plan_plots.sensitivity(found))
        bars = [Picture(drawn, "What a step gains where one part of the machine is twice as good.")]
    why = [(text, f"{count:,}") for text, count in found["pruned"].items()]
    sections = [
        Section(
            "Best plans",
            sentence(found) if found["plans"] else "",
            COLUMNS,
            [plan_row(each) for each in found["plans"]],
            3,
            pictures,
        ),
        Section("Time against memory", "", COLUMNS, [plan_row(each) for each in found["front"]], 3),
        Section("Twice as good", "", ("part", "step s", "gain", "with"), machine_rows(found), 1, bars),
        Section("One choice otherwise", "", ("option", "now", "instead", "step s", "gain", ""), change_rows(found), 3),
        Section("Pruned", "Plans that are none, by the reason that was met first.", ("because of", "plans"), why),
        *inputs(question.machine, question.model, {**question.plan.to_plain(), "mesh": "searched"}),
    ]
    counted = f"{found['enumerated']:,} plans, {found['ranked']:,} ranked by formula, the best simulated."
    lead = f"{best_plan(found)} {counted}"
    warnings = ["the search was interrupted: this is what it knew"] if found["interrupted"] else []
    if found["narrowed"]:
        warnings.append(narrowing(found))
    title = f"Plans of {found['model']} on {found['ranks']:,} ranks of {found['machine']}"
    commands = [command, *(each["command"] for each in found["plans"][:3])]
    write_report(folder, title, lead, sections, commands, warnings)
