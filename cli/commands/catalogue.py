"""``athanor list`` and ``athanor show``: what there is to choose from, and every number of it."""

from __future__ import annotations

import click

from ...reports.tables.terminal import check_writable, console, emit


@click.command("list")
@click.argument(
    "what",
    type=click.Choice(
        [
            "machines",
            "models",
            "axes",
            "placements",
            "routers",
            "balancers",
            "precisions",
            "optimizers",
            "pipelines",
            "shardings",
            "recomputations",
            "attention-kernels",
            "frameworks",
            "collectives",
            "fabrics",
            "network-models",
            "faults",
            "datasets",
            "importers",
            "exporters",
            "architectures",
            "runtime",
        ]
    ),
)
def list_(what: str) -> None:
    """List what there is to choose from."""
    from ..choices import listing

    console().print(listing(what))


@click.command()
@click.argument("what", type=click.Choice(["machine", "model"]))
@click.argument("name")
@click.option("--json", "json_path", metavar="FILE", help="Write the numbers as JSON; - for standard output.")
def show(what: str, name: str, json_path: str | None) -> None:
    """Show a machine or a model: every number with its unit and source."""
    from ...reports.tables import runs as tables

    check_writable(json_path)
    if what == "machine":
        from ...hardware.machine import load_machine

        machine = load_machine(name)
        rows, shown = list(machine.numbers()), tables.machine_table(machine)
    else:
        from ...reports.content.inputs import model_rows
        from ...workloads.model.model import load_model

        model = load_model(name)
        rows, shown = model_rows(model), tables.model_table(model)
    emit(json_path, [dict(zip(("key", "value", "source"), row, strict=True)) for row in rows])
    if json_path != "-":
        console().print(shown)
