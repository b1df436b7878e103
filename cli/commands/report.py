"""``athanor report``: saved results as one HTML page that is explored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...hardware.errors import InputError
from ..inputs import command_text
from ..options import jobs_option

if TYPE_CHECKING:
    from ...reports.explored.story import Chart


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--out", metavar="PAGE.HTML", required=True, help="The page to write.")
@click.option("--title", help="Of the page.  [default: that of the result]")
@click.option(
    "--what-if",
    is_flag=True,
    help="Simulate the runs' steps with links, arithmetic and jitter from half to four times what they are, for sliders.",
)
@jobs_option()
def report(files: tuple[str, ...], out: str, title: str | None, what_if: bool, jobs: int | None) -> None:
    """Make one HTML page of saved results, to be explored: answer, plots, timeline, tables, inputs and sources.

    FILE is what other commands wrote, or their --out folder: a run (-o of simulate and execute), a summary (--json), the
    points of a study, a plan search, a campaign, a training, a scaling study. The page needs no other file and no network.
    """
    from ...hardware.files import write_whole
    from ...reports.explored.page import page
    from ...reports.explored.saved import story_of
    from ...reports.tables.terminal import check_writable

    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: a page ends in .html")
    check_writable(out)
    sliders = _sliders(files, jobs) if what_if else {}
    stories = [story_of(each, sliders.get(each)) for each in files]
    text = page(stories, title or "", commands=[command_text()])
    write_whole(Path(out), text)
    told = ", ".join(each.title for each in stories[:3]) + ", …" * (len(stories) > 3)
    click.echo(f"{out}: {told}, {len(text.encode()):,} bytes")


def _sliders(files: tuple[str, ...], jobs: int | None) -> dict[str, Chart]:
    """Points around each run, behind sliders; raises :class:`InputError` for a run without its machine before any is made."""
    from ...reports.explored.saved import run_of
    from ...reports.explored.stories.choices import choice
    from ...reports.tables.terminal import progress
    from ...sim.what_if import what_if
    from ...sim.workers import on_cores

    runs = {}
    for file in files:
        run = run_of(file)
        if run and run.inputs is None:
            raise InputError(
                f"{file}: --what-if: holds no machine and model; an older athanor or another tool wrote it"
            )
        if run and run.inputs:
            runs[file] = (run.inputs.machine, run.inputs.model, run.plan)
    if not runs:
        raise InputError(f"--what-if: none of the files holds a run: {', '.join(files)}")
    with on_cores(jobs) as crew, progress("what if", len(runs)) as tell:
        found = {}
        for file, (machine, model, plan) in runs.items():
            found[file] = choice(what_if(machine, model, plan, crew))
            tell(file)
        return found
