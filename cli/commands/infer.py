"""``athanor infer``: how long a model takes to read a prompt and to write tokens after it."""

from __future__ import annotations

from typing import Any

import click

from ...reports.tables.terminal import check_writable, console, emit
from ..inputs import load
from ..options import json_option, machine_option, overcommit_option, plan_options
from ..run_files import run_file_argument
from ..sections import SectionedCommand


@click.command(cls=SectionedCommand)
@run_file_argument("infer")
@machine_option()
@click.option("--prompt", type=int, required=True, help="Tokens of the prompt.")
@click.option("--new-tokens", type=int, required=True, help="Tokens to generate after the prompt.")
@click.option("--sequences", type=int, default=1, show_default=True, help="Prompts at once on each data-parallel rank.")
@click.option("--reuse/--no-reuse", default=True, show_default=True, help="Keep keys and values of earlier tokens.")
@click.option(
    "--prefetch/--no-prefetch",
    default=True,
    show_default=True,
    help="Fetch a layer's offloaded weights, with all experts, while the layer before computes; without it, wait for the"
    " weights, but fetch chosen experts only.",
)
@plan_options(lambda option: option.inference)
@overcommit_option
@json_option()
def infer(
    machine: str, model: str, settings: tuple[str, ...], allow_overcommit: bool, json_path: str | None, **options: Any
) -> None:
    """Simulate inference: time to the first token and for each later one, memory, and traffic from the host."""
    from ...sim.studies.inference import infer as run_inference

    hardware, chosen = load(machine, model, settings)
    check_writable(json_path)
    given = {name: value for name, value in options.items() if value is not None}
    found = run_inference(hardware, chosen, allow_overcommit=allow_overcommit, **given).summary()
    emit(json_path, found)
    if json_path != "-":
        from ...reports.tables.runs import show_inference

        show_inference(console(), found)
