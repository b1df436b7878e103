"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ...hardware.machine import Machine
from ...hardware.units import si
from ...workloads.mesh.mesh_text import mesh_text
from ...workloads.model.model import Model
from ...workloads.schedule.operation import CATEGORIES, PHASES
from ..content.steps import bottleneck_text
from ..content.words import dropped, of_peak, percent, shown

if TYPE_CHECKING:
    from ...sim.studies.scaling import Study


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], text_columns: int = 1, caption: str = ""
) -> Table:
    """A table whose first ``text_columns`` columns are text and whose others are numbers; brackets in it are no markup."""
    made = Table(
        title=Text(title),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption=Text(caption) if caption else None,
        caption_justify="left",
    )
    for place, column in enumerate(columns):
        made.add_column(Text(column), justify="left" if place < text_columns else "right", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def _attention(totals: dict[str, Any]) -> str:
    """The kernel of attention, where it is a fused one that the machine says rates of."""
    kernel = totals.get("attention_kernel") or ""
    return "" if kernel in ("", "unfused", "fused") else f", attention {kernel}"


def show_run(console: Console, totals: dict[str, Any], links: list[dict[str, Any]]) -> None:
    """A run's summary: speed, where the time goes, memory, load and links."""
    step, network = totals["step_seconds"], totals["network"]
    console.print(
        f"[bold]{escape(totals['model'])}[/] on [bold]{escape(totals['machine'])}[/]: {totals['ranks']:,} ranks"
        f" ({mesh_text(totals['mesh'])}),"
        f" {totals['nodes']:,} nodes, {totals['tokens_per_rank']:,} tokens a rank,"
        f" network {network['depth']} with {network['routing']} routing{_attention(totals)}"
    )
    console.print(
        f"step [bold]{si(step, 's')}[/], {si(totals['tokens_per_second'], 'tokens/s')},"
        f" [bold]{si(totals['flops_per_second'], 'FLOP/s')}[/] = {of_peak(totals)}{dropped(totals)}\n"
    )
    rows = [
        (
            category,
            *(f"{totals['breakdown_by_phase'][phase][category]:.4f}" for phase in PHASES),
            f"{seconds:.4f}",
            f"{seconds / step:.1%}",
        )
        for category in CATEGORIES
        if (seconds := totals["breakdown"][category]) > 0
    ]
    rows.append(("step", *(f"{totals['phases'][phase]:.4f}" for phase in PHASES), f"{step:.4f}", "100.0%"))
    console.print(table("Exposed seconds, mean over ranks", ["", *PHASES, "step", "share"], rows))
    memory = totals["memory_per_rank_bytes"]
    parts = [(part, f"{size / 1e9:.2f}", f"{size / memory['capacity']:.1%}") for part, size in memory.items()]
    console.print(table("Memory of the fullest rank", ["", "GB", "of capacity"], parts))
    used = [
        (row["kind"], f"{row['links']:,}", si(row["capacity_bytes_per_second"], "B/s"), si(row["bytes_per_step"], "B"))
        + (f"{row['mean_utilisation']:.1%}", f"{row['max_utilisation']:.1%}")
        for row in links
    ]
    console.print(table("Links", ["kind", "links", "capacity", "bytes a step", "mean use", "most used"], used))
    if found := totals.get("bottleneck"):
        console.print(escape(bottleneck_text(found)))
        rows = [(each["change"], si(each["step_seconds"], "s"), percent(-each["gain"])) for each in found["changes"]]
        console.print(table("What would help, simulated", ["change", "step", "change of the step"], rows))
    load = totals["load_balance"]
    if totals["parameters"]["expert"]:
        console.print(
            f"load: {load['wanted_max_over_mean']:.3f} x the mean wanted at most, {load['max_over_mean']:.3f} carried;"
            f" {load['moved_fraction']:.2%} of tokens moved, {load['dropped_fraction']:.2%} dropped"
        )
    for warning in totals["warnings"]:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


def show_inference(console: Console, found: dict[str, Any]) -> None:
    """An inference: how fast, where the time goes, memory."""
    kept = "keys and values kept" if found["reuse"] else "every token computed from the start"
    console.print(
        f"[bold]{escape(found['model'])}[/] on [bold]{escape(found['machine'])}[/] ({mesh_text(found['mesh'])}):"
        f" {found['sequences']} prompts of"
        f" {found['prompt']:,} tokens, {found['new_tokens']:,} new each, {kept}"
    )
    console.print(
        f"first token [bold]{si(found['first_token_seconds'], 's')}[/], then [bold]{si(found['token_seconds'], 's')}[/] each;"
        f" {si(found['tokens_per_second'], 'tokens/s')} in all, {si(found['host_bytes_per_token'], 'B')} from the host"
        " for each pass\n"
    )
    whole = found["seconds"]
    rows = [(key, f"{value:.4f}", f"{value / whole:.1%}") for key, value in found["breakdown"].items() if value > 0]
    console.print(table("Exposed seconds", ["", "all passes", "share"], [*rows, ("all", f"{whole:.4f}", "100.0%")]))
    parts = [(part, f"{size / 1e9:.2f}") for part, size in found["memory_per_rank_bytes"].items()]
    console.print(table("Memory of a rank", ["", "GB"], parts))


def study_table(study: Study) -> Table:
    """The points of a scaling study, under its title."""
    from ..content.scaling import study_columns, study_rows, study_title

    return table(study_title(study), study_columns(study), study_rows(study), text_columns=2)


CLAIM_COLUMNS = ("claim", "target", "simulated", "error", "kind")


def claim_cells(claim: Mapping[str, Any]) -> tuple[str, str, str]:
    """Target, simulated and error of a claim: numbers, or yes and no with whether they agree."""
    if isinstance(claim["target"], bool):
        agree = claim["target"] is claim["simulated"]
        return shown(claim["target"]), shown(claim["simulated"]), "agrees" if agree else "differs"
    return f"{claim['target']:.5g}", f"{claim['simulated']:.5g}", percent(claim["relative_error"])


def claims_table(claims: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Target, simulated and error of each claim, and its kind."""
    rows = [(claim["name"], *claim_cells(claim), claim["kind"]) for claim in claims]
    made = table(title, CLAIM_COLUMNS, rows)
    made.columns[-1].justify = "left"
    return made


def machine_table(machine: Machine) -> Table:
    """Every number of a machine with its unit and source."""
    rows = [(key, value, source or Text("no source", style="red")) for key, value, source in machine.numbers()]
    return table(f"{machine.name}: {machine.description}", ["key", "value", "source"], rows, text_columns=3)


def model_table(model: Model) -> Table:
    """A model's numbers with their sources."""
    from ..content.inputs import model_rows

    return table(f"{model.name}: {model.description}", ["key", "value", "source"], model_rows(model), text_columns=3)
