"""A training on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..content.trainings import answer, predicted_section, sections
from .runs import table


def show_training(console: Console, found: Mapping[str, Any]) -> None:
    """How far the loss has come, how fast, and how level experts are."""
    console.print(f"[bold]{escape(found['model'])}[/] trained over MPI\n{escape(answer(found))}\n")
    for section in sections(found):
        console.print(table(section.title, section.columns, section.rows, caption=section.text))
    if "predicted" in found:
        show_predicted(console, found["predicted"])
    for warning in found["warnings"]:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


def show_predicted(console: Console, found: Mapping[str, Any]) -> None:
    """How far a training's steps are from their prediction."""
    section = predicted_section(found)
    console.print(table(section.title, section.columns, section.rows))
    console.print(f"{escape(section.text)}\n")
    for note in found["notes"]:
        console.print(f"[yellow]note:[/] {escape(note)}")
