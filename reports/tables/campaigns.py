"""A campaign on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from ...workloads.mesh.mesh_text import mesh_text
from ..content.campaigns import answer, sections
from .runs import table


def show_campaign(console: Console, found: Mapping[str, Any]) -> None:
    """What it takes, where the time goes, checkpoints, faults."""
    console.print(
        f"[bold]{escape(found['model'])}[/] on [bold]{escape(found['machine'])}[/]: {found['ranks']:,} ranks"
        f" ({mesh_text(found['mesh'])}), a step {found['step_seconds']:.4g} s"
    )
    console.print(f"{answer(found)}\n", markup=False)
    for section in sections(found):
        console.print(table(section.title, section.columns, section.rows, caption=section.text))
    for warning in found["warnings"]:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
