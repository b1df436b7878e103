"""``athanor infer``: how long a model takes to read a prompt and to write tokens after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..reports.tables.terminal import check_writable, console, emit
from .inputs import load
from .options import PLAN_OPTIONS, machine_option, overcommit_option

OF_PLAN = (
    "--mesh",
    "--placement",
    "--ranks-per-node",
    "--top-k",
    "--precision",
    "--router",
    "--balancer",
    "--all-to-all",
    "--offload",
    "--attention",
    "--routing",
    "--depth",
    "--seed",
)
"""The options of a training plan that mean something for inference."""


def _plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, settings in reversed(PLAN_OPTIONS):
        if name in OF_PLAN:
            command = click.option(name, **settings)(command)
    return command


@click.command()
@machine_option()
@click.option("--model", required=True, help="Name in the catalogue, or a TOML file.")
@click.option("--prompt", type=int, required=True, help="Tokens of the prompt.")
@click.option("--new-tokens", type=int, required=True, help="Tokens to write after it.")
@click.option("--sequences", type=int, default=1, show_default=True, help="Prompts at once on each data-parallel rank.")
@click.option("--reuse/--no-reuse", default=True, show_default=True, help="Keep keys and values of earlier tokens.")
@click.option(
    "--prefetch/--no-prefetch",
    default=True,
    show_default=True,
    help="Offloaded weights come beside the layer before: of experts all, without it the chosen ones.",
)
@_plan_options
@overcommit_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value in the machine file.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; - for standard output.")
def infer(
    machine: str, model: str, settings: tuple[str, ...], allow_overcommit: bool, json_path: str | None, **options: Any
) -> None:
    """Simulate inference: time to the first token, for each of those that follow, memory, traffic from the host."""
    from ..sim.studies.inference import infer as run_inference

    hardware, chosen = load(machine, model, settings)
    check_writable(json_path)
    given = {name: value for name, value in options.items() if value is not None}
    found = run_inference(hardware, chosen, allow_overcommit=allow_overcommit, **given).summary()
    emit(json_path, found)
    if json_path != "-":
        from ..reports.tables.runs import show_inference

        show_inference(console(), found)
