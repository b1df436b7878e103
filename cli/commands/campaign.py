"""``athanor campaign``: a whole training, with its faults, checkpoints, energy and cost."""

from __future__ import annotations

from typing import Any

import click

from ...reports.tables.terminal import check_writable, console, emit
from ...sim.campaign.campaign_plan import CampaignPlan
from ..inputs import command_text, load
from ..options import declared_options, machine_option, overcommit_option, plan_options, result_options
from ..run_files import run_file_argument
from ..sections import SectionedCommand


@click.command(cls=SectionedCommand)
@run_file_argument("campaign")
@machine_option()
@plan_options()
@declared_options(CampaignPlan.options())
@overcommit_option
@result_options
def campaign(
    machine: str,
    model: str,
    settings: tuple[str, ...],
    allow_overcommit: bool,
    json_path: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Play a whole training: wall clock, goodput, where the time goes, energy, carbon and cost, over many seeds.

    The steps come from the simulator; faults strike, checkpoints are written, nodes are mended. Name a budget: --tokens,
    --train-steps or --target-loss.
    """
    from ...reports.pages.output_folder import Folder
    from ...sim.campaign.campaign import campaign as play

    check_writable(json_path)
    hardware, chosen = load(machine, model, settings)
    folder = Folder(out) if out else None
    found = play(hardware, chosen, allow_overcommit=allow_overcommit, **options)
    if folder:
        from ...reports.pages.campaign import write_campaign

        write_campaign(folder, found, hardware, chosen, command_text())
    emit(json_path, found.summary())
    if json_path != "-":
        from ...reports.tables.campaigns import show_campaign

        show_campaign(console(), found.summary())
