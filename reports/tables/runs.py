"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ...hardware.machine import Machine
from ...hardware.units import si
from ...sim.studies.scaling import Study
from ...workloads.model.model import Latent, Model
from ...workloads.schedule.operation import CATEGORIES, PHASES


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1, caption: str = ""
) -> Table:
    """A table whose first ``text_columns`` columns are text and whose others are numbers."""
    made = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", caption=caption or None, caption_justify="left"
    )
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < text_columns else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def percent(error: float) -> str:
    """A relative error as text; what rounds to nothing has no sign."""
    return f"{round(error, 4) + 0.0:+.2%}"


def show_run(console: Console, totals: dict[str, Any], links: list[dict[str, Any]]) -> None:
    """A run's summary: speed, where the time goes, memory, load and links."""
    step, network = totals["step_seconds"], totals["network"]
    mesh = ",".join(f"{axis}={size}" for axis, size in totals["mesh"].items())
    console.print(
        f"[bold]{totals['model']}[/] on [bold]{totals['machine']}[/]: {totals['ranks']:,} ranks ({mesh}),"
        f" {totals['nodes']:,} nodes, {totals['tokens_per_rank']:,} tokens a rank,"
        f" network {network['depth']} with {network['routing']} routing"
    )
    console.print(
        f"step [bold]{si(step, 's')}[/], {si(totals['tokens_per_second'], 'tokens/s')},"
        f" [bold]{si(totals['flops_per_second'], 'FLOP/s')}[/] = {totals['peak_fraction']:.1%} of peak\n"
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
    load = totals["load_balance"]
    if totals["parameters"]["expert"]:
        console.print(
            f"load: {load['wanted_max_over_mean']:.3f} x the mean wanted at most, {load['max_over_mean']:.3f} carried;"
            f" {load['moved_fraction']:.2%} of tokens moved, {load['dropped_fraction']:.2%} dropped"
        )
    for warning in totals["warnings"]:
        console.print(f"[yellow]warning:[/] {warning}")


def show_inference(console: Console, found: dict[str, Any]) -> None:
    """An inference: how fast, where the time goes, memory."""
    mesh = ",".join(f"{axis}={size}" for axis, size in found["mesh"].items())
    kept = "keys and values kept" if found["reuse"] else "every token computed from the start"
    console.print(
        f"[bold]{found['model']}[/] on [bold]{found['machine']}[/] ({mesh}): {found['sequences']} prompts of"
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


STUDY_COLUMNS = ("nodes", "step s", "FLOP/s", "tokens/s", "speed-up", "efficiency")


def study_title(study: Study) -> str:
    """What a scaling study is of."""
    return f"{study.kind.capitalize()} scaling of {study.model.name} on {study.machine.name}"


def study_rows(study: Study) -> list[tuple[str, ...]]:
    """The points of a scaling study."""
    return [
        (f"{point.nodes:,}", f"{point.summary['step_seconds']:.3f}", si(point.summary["flops_per_second"], "FLOP/s"))
        + (si(point.summary["tokens_per_second"], "tokens/s"), f"{point.speedup:.2f}", f"{point.efficiency:.1%}")
        for point in study.points
    ]


def study_table(study: Study) -> Table:
    """The points of a scaling study, under its title."""
    return table(study_title(study), STUDY_COLUMNS, study_rows(study), text_columns=0)


def claims_table(claims: Sequence[dict[str, Any]], title: str) -> Table:
    """Target, simulated and error of each claim, and whether it is exact, fitted or predicted."""
    rows = [
        (
            claim["name"],
            f"{claim['target']:.5g}",
            f"{claim['simulated']:.5g}",
            percent(claim["relative_error"]),
            claim["kind"],
        )
        for claim in claims
    ]
    made = table(title, ["claim", "target", "simulated", "error", "kind"], rows)
    made.columns[-1].justify = "left"
    return made


def machine_table(machine: Machine) -> Table:
    """Every number of a machine with its unit and source."""
    rows = [(key, value, source or "[red]no source[/]") for key, value, source in machine.numbers()]
    return table(f"{machine.name}: {machine.description}", ["key", "value", "source"], rows, text_columns=3)


NO_SHAPE = {"name", "description", "plan", "sources"}
"""Keys of a model file that hold no number of the model."""

PARTS = {
    "expert": "routed experts: experts x matrices x hidden x expert_hidden in each layer that has them",
    "ffn": "dense FFNs, and experts that see every token",
    "attention": "matrices of queries, keys, values and outputs; in a decoder beside an encoder twice",
    "gate": "hidden x experts in each layer that has them",
    "embedding": "words, positions, the projection of patches, and an output layer of its own where it is not tied",
    "norm": "scales of the norms, and shifts of layer norms",
    "total": "sum",
}
"""What the parts of a model's parameters hold."""


def model_rows(model: Model) -> list[tuple[str, str, str]]:
    """(key, value, source) of a model's shape and its recommended plan, and the parameters that follow."""
    shape = [key for key in type(model).model_fields if key in model.model_fields_set - NO_SHAPE]
    rows = [(key, _shown(getattr(model, key)), _source(model, key)) for key in shape]
    rows += [(f"parameters.{part}", f"{getattr(model.parameters, part):,}", text) for part, text in PARTS.items()]
    return rows + [(f"plan.{key}", str(value), _source(model, f"plan.{key}")) for key, value in model.plan.items()]


def _shown(value: Any) -> str:
    """A value of a model file as text."""
    if isinstance(value, bool | str):
        return str(value).lower()
    if isinstance(value, Latent):
        return ", ".join(f"{name} {size:,}" for name, size in value)
    return f"{value:,.0f}"


def model_table(model: Model) -> Table:
    """A model's numbers with their sources."""
    return table(f"{model.name}: {model.description}", ["key", "value", "source"], model_rows(model), text_columns=3)


def _source(model: Model, key: str) -> str:
    """The source of a key; "same" means that of the key before."""
    last = ""
    for name, text in model.sources.items():
        last = last if text == "same" else text.replace("same:", f"{last}:")
        if name == key:
            return last
    return model.sources.get(key.split(".")[0], "")
