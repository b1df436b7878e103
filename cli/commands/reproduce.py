"""``athanor reproduce``: published claims beside what Athanor computes."""

from __future__ import annotations

import click

from ...reports.studies.reproductions import NAMES
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text
from ..options import result_options


@click.command()
@click.argument("what", type=click.Choice(NAMES))
@result_options
def reproduce(what: str, json_path: str | None, out: str | None) -> None:
    """Print every published claim beside what Athanor computes, and whether it was fitted or predicted."""
    from ...reports.pages.output_folder import Folder
    from ...reports.pages.reproduction import show_reproduction, write_reproduction
    from ...reports.studies.reproductions import reproduce as reproduction

    check_writable(json_path)
    folder = Folder(out) if out else None
    with progress(f"reproduce {what}") as advance:
        found = reproduction(what, advance)
    if folder:
        write_reproduction(folder, found, command_text())
    emit(json_path, found.plain())
    if json_path != "-":
        show_reproduction(console(), found)
