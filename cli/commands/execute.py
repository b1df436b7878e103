"""``athanor execute``: training steps over MPI."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text, first
from ..jobs import JobCommand, refused_by_all
from ..options import (
    machine_option,
    overcommit_option,
    plan_options,
    result_options,
    run_file_option,
    runtime_options,
)
from ..run_files import repeating, run_file_argument


@click.command(cls=JobCommand)
@run_file_argument("execute")
@machine_option("laptop")
@plan_options()
@overcommit_option
@runtime_options
@click.option(
    "--compute",
    type=click.Choice(["gemm", "sleep"]),
    default="gemm",
    show_default=True,
    help="gemm: NumPy, in the operations' real shapes; sleep: a virtual accelerator that takes the machine file's time.",
)
@click.option(
    "--compute-scale", type=float, default=1.0, show_default=True, help="With gemm: compute so many times the rows."
)
@click.option(
    "--collectives",
    type=click.Choice(["rounds", "library"]),
    default="rounds",
    show_default=True,
    help="rounds: the schedule's own algorithms over Isend and Irecv; library: the MPI library's collectives.",
)
@click.option(
    "--check/--no-check",
    default=True,
    help="Compare a first step, which is not measured, with NumPy alone.  [default: check]",
)
@result_options
@run_file_option
def execute(
    machine: str,
    model: str,
    settings: tuple[str, ...],
    allow_overcommit: bool,
    expect_ranks: int | None,
    time_limit: float,
    compute: Any,
    compute_scale: float,
    collectives: Any,
    check: bool,
    json_path: str | None,
    out: str | None,
    output: str | None,
    **options: Any,
) -> None:
    """Execute training steps over MPI by the schedule that simulate predicts: mpiexec -n P athanor execute ….

    The mesh has as many ranks as are started. Times, loads and links are measured; the machine names where ranks live, and with
    --compute sleep how fast they compute.
    """
    from ...mpi_runtime.job.environment import prepare

    prepare()
    from ...mpi_runtime.execute.execute import Way
    from ...mpi_runtime.execute.execute import execute as execute_run
    from ...reports.pages.output_folder import Folder
    from ..inputs import load

    with refused_by_all():
        hardware, chosen = load(machine, model, settings)
        way = Way(compute, compute_scale, collectives, check, allow_overcommit)
    folders: list[Folder] = []

    def ready() -> None:
        check_writable(output, json_path)
        if out:
            folders.append(Folder(out))

    with progress("execute") if first() else nullcontext(lambda text: None) as advance:
        run = execute_run(
            hardware,
            chosen,
            way=way,
            expect_ranks=expect_ranks,
            time_limit=time_limit,
            ready=ready,
            advance=advance,
            **options,
        )
    if run is None:
        return
    if output:
        run.save(output)
    for folder in folders:
        from ...reports.pages.run import write_run

        again = repeating(folder.path, machine, model, settings, run.plan, allow_overcommit)
        write_run(folder, run, hardware, chosen, command_text(), again)
    emit(json_path, run.summary())
    if json_path != "-":
        from ...reports.tables.runs import show_run

        show_run(console(), run.summary(), run.summary()["links"])
