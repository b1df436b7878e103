"""The commands that run over MPI: ``athanor execute`` and ``athanor calibrate``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from .inputs import command_text, first
from .options import machine_option, overcommit_option, plan_options, result_options, runtime_options
from .reports.terminal import check_writable, console, emit, progress


@click.command()
@plan_options
@machine_option("laptop")
@overcommit_option
@runtime_options
@click.option(
    "--compute",
    type=click.Choice(["gemm", "sleep"]),
    default="gemm",
    show_default=True,
    help="gemm: NumPy, with the operations' real shapes; sleep: a virtual accelerator that takes the machine's time.",
)
@click.option("--compute-scale", type=float, default=1.0, show_default=True, help="gemm: times so many rows.")
@click.option(
    "--collectives",
    type=click.Choice(["rounds", "library"]),
    default="rounds",
    show_default=True,
    help="rounds: the schedule's own algorithms over Isend and Irecv; library: the MPI library's collectives.",
)
@click.option(
    "--check/--no-check", default=True, help="Compare a first, unmeasured step with NumPy alone.  [default: check]"
)
@result_options
@click.option("-o", "output", metavar="FILE", help="Write the whole run (summary, plan, trace) as JSON.")
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
    from .mpi_runtime.environment import prepare

    prepare()
    from .inputs import load
    from .mpi_runtime.execute import Way
    from .mpi_runtime.execute import execute as execute_run
    from .reports.output import Folder

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
        from .reports.run_report import write_run

        write_run(folder, run, hardware, chosen, command_text())
    emit(json_path, run.summary())
    if json_path != "-":
        from .reports.tables import show_run

        show_run(console(), run.summary(), run.summary()["links"])


@click.command()
@click.option("-o", "output", metavar="FILE", required=True, help="The machine file to write.")
@click.option(
    "--like", metavar="MACHINE", help="Take structure and nominal rates from a machine: its name, or a TOML file."
)
@click.option("--nodes-per-supernode", type=int, help="Hosts in a row that share a supernode.  [default: of --like]")
@click.option("--network-only", is_flag=True, help="Leave computing as --like has it.")
@click.option("--quick", is_flag=True, help="Fewer sizes, shapes and samples: some seconds, larger errors.")
@click.option("--fresh", is_flag=True, help="Measure anew what an earlier calibration has kept.")
@runtime_options
@result_options
def calibrate(
    output: str,
    like: str | None,
    expect_ranks: int | None,
    time_limit: float,
    json_path: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Measure the computers of a job, and write a machine file of them: mpiexec -n P athanor calibrate -o FILE.

    Messages by level, links that all ranks fill, collectives by algorithm, products and memory; each number with its standard
    error. Finished points are kept beside FILE: an interrupted calibration goes on where it stopped.
    """
    from .mpi_runtime.environment import prepare

    prepare()
    from .hardware.machine import load_machine
    from .hardware.writer import machine_toml
    from .mpi_runtime.calibration.calibrate import Task
    from .mpi_runtime.calibration.calibrate import calibrate as calibrate_job
    from .reports.output import Folder, write_whole

    task = Task(Path(output), like=load_machine(like) if like else None, **options)

    def ready() -> None:
        check_writable(output, str(task.samples_file), json_path)
        if out:
            Folder(out)

    with progress("calibrate") as advance:
        found = calibrate_job(task, expect_ranks=expect_ranks, time_limit=time_limit, ready=ready, advance=advance)
    if found is None:
        return
    from .reports import calibration_report as report
    from .reports.calibration_checks import Told

    write_whole(Path(output), machine_toml(found.machine))
    told = Told.of(found)
    if out:
        report.write_calibration(Folder(out), told, command_text())
    emit(json_path, told.plain())
    if json_path != "-":
        report.show_calibration(console(), told)
