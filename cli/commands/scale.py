"""``athanor scale``: one model over many node counts."""

from __future__ import annotations

from typing import Any

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text, load
from ..options import jobs_option, machine_option, overcommit_option, plan_options, result_options
from ..run_files import run_file_argument
from ..sections import SectionedCommand


@click.command(cls=SectionedCommand)
@click.argument("kind", type=click.Choice(["weak", "strong"]))
@run_file_argument("scale")
@machine_option()
@plan_options()
@overcommit_option
@result_options
@jobs_option()
@click.option("--nodes", help="Node counts, such as 6000,12000,96000.  [default: fractions of the plan's nodes]")
@click.option(
    "--grow",
    type=click.Choice(["experts", "data"]),
    help="What grows with the nodes in weak scaling: experts and batch (a larger model at each point), or only the batch"
    " (data: more replicas of the same model).  [default: experts if the mesh has ep]",
)
def scale(
    kind: Any,
    machine: str,
    model: str,
    settings: tuple[str, ...],
    json_path: str | None,
    out: str | None,
    nodes: str | None,
    grow: Any,
    jobs: int | None,
    **options: Any,
) -> None:
    """Scale a model over node counts: weak (the batch grows along, and see --grow) or strong (model and batch stay).

    With --out, finished points are kept: an interrupted study continues when it runs again.
    """
    from ...hardware.cores import cores
    from ...hardware.kept_points import Points
    from ...reports.pages.output_folder import Folder
    from ...sim.studies.scaling import Study
    from ...sim.studies.scaling import scale as scale_study

    counts = _node_counts(nodes)
    check_writable(json_path)
    hardware, chosen = load(machine, model, settings)
    folder = Folder(out) if out else None
    points = Points(folder.path) if folder else None
    latest: list[Study] = []
    order: dict[str, int] = {}
    with progress(f"{kind} scaling", len(counts) if counts else None) as advance:

        def on_point(key: str, study: Study) -> None:
            latest[:] = [study]
            assert study.newest is not None
            if points:
                points.keep(key, study.newest.summary)
            order[key] = study.newest.nodes
            advance(f"{study.newest.nodes:,} nodes done")

        try:
            scale_study(
                kind,
                hardware,
                chosen,
                counts,
                grow=grow,
                known=points.known if points else None,
                on_point=on_point,
                jobs=jobs or cores(),
                **options,
            )
        except KeyboardInterrupt:
            if folder and latest:
                _write_study(folder, latest[0])
            raise
    study = latest[0]
    if folder and points:
        points.settle(sorted(order, key=lambda key: order[key]))
        _write_study(folder, study)
    emit(json_path, study.to_plain())
    if json_path != "-":
        from ...reports.tables.runs import study_table

        console().print(study_table(study))


def _write_study(folder: Any, study: Any) -> None:
    from ...reports.pages.scaling import write_study

    write_study(folder, study, command_text())


def _node_counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.replace("_", "").split(",")]
    except ValueError:
        raise InputError(f"--nodes {text}: write node counts, such as 6000,12000,96000") from None
