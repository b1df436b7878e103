"""The command ``athanor memory``."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import load
from ..options import json_option, machine_option, plan_options
from ..run_files import run_file_argument
from ..sections import SectionedCommand

MOST_REMEDIES = 12
"""Ways to make a plan fit that are told."""


@click.command(cls=SectionedCommand)
@run_file_argument()
@machine_option()
@plan_options()
@json_option("Write the account as JSON; - for standard output.")
def memory(machine: str, model: str, settings: tuple[str, ...], json_path: str | None, **options: Any) -> None:
    """Tell what a rank keeps in memory, by part, stage and operator; whether it fits, and what would make it fit.

    Nothing is simulated. The exit status is 3 if the plan does not fit; tables and JSON are written all the same.
    """
    from ...hardware.errors import DoesNotFit
    from ...reports.pages.memory import plain, show
    from ...workloads.memory import Remedy, account, remedies, sample_loads, shortage
    from ...workloads.plan.setting import Setting

    check_writable(json_path)
    setting = Setting.of(*load(machine, model, settings), options)
    loads = sample_loads(setting)
    found, ways = account(setting, loads), list[Remedy]()
    need = found.worst

    def tell() -> None:
        emit(json_path, plain(found, ways))
        if json_path != "-":
            show(console(), found, ways)

    try:
        if not need.fits:
            with progress("memory") as advance:
                advance("looking for what would make it fit")
                for way in islice(remedies(setting, loads), MOST_REMEDIES):
                    ways.append(way)
                    advance(way.flags)
    except KeyboardInterrupt:
        tell()
        raise
    tell()
    if not need.fits:
        raise DoesNotFit(
            shortage(setting, need) + ("" if ways else "; none of the changes that were tried makes it fit")
        )
