"""A plan search as tables, plots and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ...hardware.units import si
from ...workloads.mesh.mesh_text import mesh_text
from ..content.words import shown
from ..tables.runs import percent, table
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from rich.console import Console

    from ...sim.planning.question import Question

SHOWN = 12
"""Rows of a list that the terminal shows."""

COLUMNS = ("mesh", "placement", "options", "step s", "formula", "GB a rank")


def narrowing(found: dict[str, Any]) -> str:
    """What was left out where there were too many plans, and how to have it."""
    kept = "; ".join(f"{key.replace('_', '-')} {', '.join(map(str, each))}" for key, each in found["narrowed"].items())
    return (
        f"too many plans: only those with {kept} were searched, {found['left_out']:,} others were not;"
        " --try names other values, --limit allows more plans"
    )


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


def plan_row(plan: dict[str, Any]) -> tuple[str, ...]:
    """A plan as a line of a table; the formula's error stands where the engine has run it."""
    error = percent(plan["closed_form_seconds"] / plan["step_seconds"] - 1) if plan["simulated"] else ""
    total = plan["memory_per_rank_bytes"]["total"]
    return (
        mesh_text(plan["mesh"]),
        plan["placement"],
        options_text(plan),
        f"{plan['step_seconds']:.4g}",
        error,
        f"{total / 1e9:.1f}",
    )


def options_text(plan: dict[str, Any]) -> str:
    """The choices of a plan beside its mesh, those that are as always left out."""
    options = plan["options"]
    words = [f"zero {options['zero']}", f"recompute {options['recompute']}"]
    if options["micro_batch"]:
        words.insert(0, f"micro-batch {options['micro_batch']}")
    if "pp" in plan["mesh"]:
        chunks = f" x {options['chunks']}" if options["chunks"] > 1 else ""
        ends = ", ends count" if options.get("stage_layers") == "ends" else ""
        words.append(f"{options['pipeline']}{chunks}{ends}")
    words += ["sequence-parallel"] if options["sequence_parallel"] else []
    words += ["overlap"] if options["overlap"] != "none" else []
    words += [f"offload {options['offload']}"] if options["offload"] != "none" else []
    words += [f"tensor {options['tensor']}"] if options["tensor"] != "1d" else []
    words += [f"experts {options['expert_tensor']}"] if options["expert_tensor"] != "split" else []
    return ", ".join(words)


def sentence(found: dict[str, Any]) -> str:
    """What limits the best plan, and how far the next one is."""
    limits, parts = found["limits"], []
    if limits:
        shares = sorted(limits["breakdown"].items(), key=lambda pair: -pair[1])
        busiest = max(limits["links"].items(), key=lambda pair: pair[1], default=None)
        parts.append(
            "the best plan's step is "
            + ", ".join(f"{share:.0%} {name.replace('_', ' ')}" for name, share in shares[:4])
        )
        if busiest:
            parts.append(f"its busiest link is {busiest[0]}, {busiest[1]:.0%} of the time")
        parts.append(f"it takes {limits['memory']:.0%} of the memory")
    if found["margin"] is not None:
        parts.append(f"the next plan takes {found['margin']:.2%} longer")
    if found["margin_to_next_mesh"] is not None:
        parts.append(f"the next mesh {found['margin_to_next_mesh']:.2%}")
    if error := found["closed_form_error"]:
        parts.append(
            f"the formula is off by {error['mean_absolute']:.2%} in the mean, {percent(error['worst'])} at worst"
        )
    return "; ".join(parts).capitalize() + "."


def best_plan(found: dict[str, Any]) -> str:
    """The best plan in a sentence."""
    if not found["plans"]:
        return "No plan fits."
    best = found["plans"][0]
    more = options_text(best)
    return f"The fastest plan is {mesh_text(best['mesh'])}, {more}: a step takes {si(best['step_seconds'], 's')}."


def machine_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Each part of the machine twice as good."""
    return [
        (each["part"], f"{each['seconds']:.4g}", f"{each['gain']:.1%}", each["note"]) for each in found["sensitivity"]
    ]


def change_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Each choice made otherwise."""
    return [
        (each["option"].replace("_", "-"), shown(each["before"]), shown(each["after"]), f"{each['seconds']:.4g}")
        + (f"{each['gain']:.1%}", "" if each["fits"] else "does not fit")
        for each in found["changes"]
    ]


@all_or_nothing
def write_search(folder: Folder, found: dict[str, Any], question: Question, command: str) -> None:
    """Write ``plan.json``, ``plans.csv``, the plots and ``report.html``."""
    import pandas as pd

    from ..content.inputs import inputs
    from ..content.sections import Picture, Section
    from ..plots import plans as plan_plots
    from .html_page import write_report

    folder.json("plan.json", found)
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
