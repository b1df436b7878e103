"""One self-contained HTML report: sections of text, tables and figures, with inputs, sources, warnings and commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...hardware.machine import Machine
from ...hardware.units import si
from ...hardware.version import version
from ...workloads.model.model import Model
from ..tables.runs import model_rows
from .output_folder import Folder

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a report; the first ``text_columns`` columns of its table are text, the others numbers."""

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    text_columns: int = 1
    figures: Sequence[Picture] = field(default_factory=tuple)


@lru_cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=select_autoescape(["html", "j2"]))
    return environment.get_template("report.html.j2")


def write_report(
    folder: Folder, title: str, lead: str, sections: Sequence[Section], commands: Sequence[str], warnings: Sequence[str]
) -> None:
    """Write ``report.html``: it needs no other file and no network."""
    text = _template().render(
        title=title, lead=lead, sections=sections, commands=commands, warnings=warnings, version=version()
    )
    folder.text("report.html", text)


def machine_section(machine: Machine) -> Section:
    """A machine, every number with its source."""
    numbers = [(key, value, source or "no source given") for key, value, source in machine.numbers()]
    return Section(f"Machine: {machine.name}", machine.description, ("key", "value", "source"), numbers, 3)


def inputs(machine: Machine, model: Model, plan: dict[str, Any]) -> list[Section]:
    """Machine, model and plan, every number with its source."""
    chosen = [(key, str(value)) for key, value in plan.items() if value is not None]
    return [
        machine_section(machine),
        Section(f"Model: {model.name}", model.description, ("key", "value", "source"), model_rows(model), 3),
        Section(
            "Plan",
            "The user's choices; what is not named comes from the model's recommended plan.",
            ("option", "value"),
            chosen,
            2,
        ),
    ]


def breakdown_section(summary: dict[str, Any], figures: Sequence[Picture]) -> Section:
    """Exposed seconds by category."""
    step = summary["step_seconds"]
    rows = [
        (category.replace("_", "-"), f"{s:.4f}", f"{s / step:.1%}")
        for category, s in summary["breakdown"].items()
        if s > 0
    ]
    text = (
        f"Step {si(step, 's')}, {si(summary['flops_per_second'], 'FLOP/s')}, {summary['peak_fraction']:.1%} of peak."
        " Seconds are means over ranks; communication under compute is not exposed; waiting for slower ranks is imbalance."
    )
    return Section("Where the time goes", text, ("category", "seconds", "share"), rows, figures=figures)
