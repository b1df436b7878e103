"""``athanor lower``: the schedule of a step."""

from __future__ import annotations

import json
from typing import Any

import click

from ...reports.tables.terminal import check_writable, emit
from ..inputs import load
from ..options import json_option, machine_option, plan_options
from ..run_files import run_file_argument
from ..sections import SectionedCommand


@click.command(cls=SectionedCommand)
@run_file_argument("lower")
@machine_option()
@plan_options()
@click.option("--step", type=int, default=0, show_default=True, help="The training step to lower.")
@json_option("Write the schedule as JSON; - for standard output.")
def lower(
    machine: str, model: str, settings: tuple[str, ...], step: int, json_path: str | None, **options: Any
) -> None:
    """Print the schedule of a step: every operation, its stream, and what it waits for."""
    from ...workloads.lowering import lower as lower_to_schedule

    check_writable(json_path)
    schedule = lower_to_schedule(*load(machine, model, settings), step, **options)
    emit(json_path, json.loads(schedule.to_json()) if json_path else None)
    if json_path != "-":
        click.echo(str(schedule))
