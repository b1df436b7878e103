"""``athanor simulate``: training steps, simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...reports.tables.terminal import check_writable, console, emit
from ..inputs import command_text, load
from ..options import machine_option, overcommit_option, plan_options, result_options, run_file_option
from ..run_files import repeating, run_file_argument
from ..sections import SectionedCommand


@click.command(cls=SectionedCommand)
@run_file_argument()
@machine_option()
@plan_options()
@overcommit_option
@click.option(
    "--bottleneck",
    is_flag=True,
    help="Say what limits the step, and by how much better links, cards, memory and core groups would shorten it.",
)
@result_options
@run_file_option
def simulate(
    machine: str,
    model: str,
    settings: tuple[str, ...],
    allow_overcommit: bool,
    bottleneck: bool,
    json_path: str | None,
    out: str | None,
    output: str | None,
    **options: Any,
) -> None:
    """Simulate training steps: time, where it goes, memory, load and links."""
    from ...reports.pages.output_folder import Folder
    from ...sim.simulate import simulate as simulate_run

    hardware, chosen = load(machine, model, settings)
    check_writable(output, json_path)
    folder = Folder(out) if out else None
    beside = _folder_of(output or out)
    run = simulate_run(
        hardware, chosen, allow_overcommit=allow_overcommit, bottleneck=bottleneck, trace_folder=beside, **options
    )
    if output:
        run.save(output)
    if folder:
        from ...reports.pages.run import write_run

        again = repeating(folder.path, machine, model, settings, run.plan, allow_overcommit)
        write_run(folder, run, hardware, chosen, command_text(), again)
    emit(json_path, run.summary())
    if json_path != "-":
        from ...reports.tables.runs import show_run

        show_run(console(), run.summary(), run.summary()["links"])


def _folder_of(target: str | None) -> Path | None:
    """The folder that a file or folder goes to, as far as there is one; None for what is no file, such as a pipe."""
    if target is None or (Path(target).exists() and not Path(target).is_file() and not Path(target).is_dir()):
        return None
    return next(each for each in Path(target).resolve().parents if each.is_dir())
