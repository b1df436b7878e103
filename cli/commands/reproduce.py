"""``athanor reproduce``: published claims beside what Athanor computes."""

from __future__ import annotations

import click

from ...reports.studies.reproductions import NAMES
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text
from ..options import jobs_option, result_options


@click.command()
@click.argument("what", type=click.Choice(NAMES))
@jobs_option()
@result_options
def reproduce(what: str, jobs: int | None, json_path: str | None, out: str | None) -> None:
    """Print every published claim beside what Athanor computes, and whether it was fitted or predicted.

    With --out, finished steps are kept: an interrupted reproduction continues when it runs again.
    """
    from ...hardware.cores import cores
    from ...hardware.kept_points import Points
    from ...reports.pages.output_folder import Folder
    from ...reports.pages.reproduction import show_reproduction, write_reproduction
    from ...reports.studies.reproductions import reproduce as reproduction

    check_writable(json_path)
    folder = Folder(out) if out else None
    points = Points(folder.path) if folder else None
    with progress(f"reproduce {what}") as advance:
        found = reproduction(
            what,
            advance,
            known=points.known if points else None,
            keep=points.keep if points else lambda key, result: None,
            jobs=jobs or cores(),
        )
    if folder and points:
        points.settle(sorted(points.known))
        write_reproduction(folder, found, command_text())
    emit(json_path, found.plain())
    if json_path != "-":
        show_reproduction(console(), found)
