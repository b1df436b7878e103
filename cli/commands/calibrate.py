"""``athanor calibrate``: the computers of a job, or one accelerator, measured and written as a machine file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from ...hardware.errors import InputError, suggestion
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text
from ..jobs import JobCommand, refused_by_all
from ..options import result_options, runtime_options

if TYPE_CHECKING:
    from ...hardware.precisions import Precision

ACCELERATOR_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("--device", {"help": "With --accelerator: cpu, cuda or cuda:N.  [default: the first GPU, else cpu]"}),
    ("--threads", {"type": int, "help": "With --accelerator on cpu: threads that compute.  [default: PyTorch's]"}),
    (
        "--precision",
        {
            "metavar": "NAMES",
            "help": "With --accelerator: fp32,bf16 of fp64, fp32, fp16, bf16, fp8.  [default: its fast ones]",
        },
    ),
    (
        "--seconds",
        {"type": float, "help": "With --accelerator: measure for so long at most.  [default: 180; --quick: 30]"},
    ),
    (
        "--peak",
        {
            "multiple": True,
            "metavar": "NAME=RATE",
            "help": "With --accelerator: a data sheet's peak, bf16=989TFLOP/s.  [default: of --like, else the best seen]",
        },
    ),
]

OVER_MPI = ("nodes_per_supernode", "network_only", "expect_ranks", "time_limit")
"""Options of calibrate that only a job over MPI has."""


def accelerator_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a calibration of one accelerator."""
    for name, settings in reversed(ACCELERATOR_OPTIONS):
        command = click.option(name, *(["peaks"] if name == "--peak" else []), **settings)(command)
    return click.option(
        "--accelerator", is_flag=True, help="Measure one accelerator with PyTorch, in one process without MPI."
    )(command)


@click.command(cls=JobCommand)
@click.option("-o", "output", metavar="FILE", required=True, help="The machine file to write.")
@click.option(
    "--like", metavar="MACHINE", help="Take structure and nominal rates from this machine, a name or a TOML file."
)
@click.option("--nodes-per-supernode", type=int, help="Consecutive hosts that share a supernode.  [default: as --like]")
@click.option(
    "--network-only", is_flag=True, help="Measure the network only, and take compute rates from the machine of --like."
)
@click.option("--quick", is_flag=True, help="Use fewer sizes, shapes and samples: takes seconds, with larger errors.")
@click.option("--fresh", is_flag=True, help="Measure again, ignoring the points that an earlier calibration has kept.")
@accelerator_options
@runtime_options
@result_options
def calibrate(
    output: str,
    like: str | None,
    expect_ranks: int | None,
    time_limit: float,
    json_path: str | None,
    out: str | None,
    accelerator: bool,
    **options: Any,
) -> None:
    """Measure the computers of a job and write their machine file: mpiexec -n P athanor calibrate -o FILE.

    Measures messages at each level, links that all ranks use at once, collectives by algorithm, matrix products and memory,
    each with its standard error. With --accelerator, measures one GPU or processor instead: products over shapes, layouts
    and precisions, attention, memory-bound operators and starts. The compute model is fitted to half of these, and its
    error on the other half is printed. Finished points are kept beside FILE: an interrupted calibration continues.
    """
    with refused_by_all():
        _of_one_kind(accelerator)
    mine = {name: options.pop(name) for name in ("device", "threads", "precision", "seconds", "peaks")}
    if accelerator:
        mine |= {name: options[name] for name in ("quick", "fresh")}
        _calibrate_accelerator(output, like, json_path, out, **mine)
        return
    from ...mpi_runtime.job.environment import prepare

    prepare()
    from ...hardware.files import write_whole
    from ...hardware.machine import load_machine
    from ...hardware.machine_writer import machine_toml
    from ...mpi_runtime.calibration.calibrate import CalibrationTask
    from ...mpi_runtime.calibration.calibrate import calibrate as calibrate_job
    from ...reports.pages.output_folder import Folder

    with refused_by_all():
        task = CalibrationTask(Path(output), like=load_machine(like) if like else None, **options)

    def ready() -> None:
        check_writable(output, str(task.samples_file), json_path)
        if out:
            Folder(out)

    with progress("calibrate") as advance:
        found = calibrate_job(task, expect_ranks=expect_ranks, time_limit=time_limit, ready=ready, advance=advance)
    if found is None:
        return
    from ...reports.pages import calibration as report
    from ...reports.studies.calibration_checks import Told

    write_whole(Path(output), machine_toml(found.machine))
    told = Told.of(found)
    if out:
        report.write_calibration(Folder(out), told, command_text())
    emit(json_path, told.plain())
    if json_path != "-":
        report.show_calibration(console(), told)


def _of_one_kind(accelerator: bool) -> None:
    """Refuse options of the other kind of calibration, rather than pass over them."""
    context = click.get_current_context()
    own = [name.lstrip("-").replace("-", "_") for name, _ in ACCELERATOR_OPTIONS]
    for name in OVER_MPI if accelerator else [*own, "peaks"]:
        source = context.get_parameter_source(name)
        if source is not None and source is not ParameterSource.DEFAULT:
            flag = "--peak" if name == "peaks" else f"--{name.replace('_', '-')}"
            why = "is for calibrations over MPI, not for --accelerator" if accelerator else "needs --accelerator"
            raise InputError(f"{flag}: {why}")


def _calibrate_accelerator(
    output: str, like: str | None, json_path: str | None, out: str | None, **options: Any
) -> None:
    from ...hardware.files import write_whole
    from ...hardware.machine import load_machine
    from ...hardware.machine_writer import machine_toml
    from ...mpi_runtime.accelerator.calibrate import AcceleratorTask, calibrate_accelerator
    from ...reports.pages.output_folder import Folder

    peaks = dict(_peak(text) for text in options.pop("peaks"))
    task = AcceleratorTask(
        Path(output),
        like=load_machine(like) if like else None,
        precisions=options.pop("precision"),
        peaks=peaks,
        **options,
    )

    def ready() -> None:
        check_writable(output, str(task.samples_file), json_path)
        if out:
            Folder(out)

    with progress("calibrate") as advance:
        found = calibrate_accelerator(task, ready=ready, advance=advance)
    from ...reports.pages import accelerator as report
    from ...reports.studies.accelerator_errors import plain

    write_whole(Path(output), machine_toml(found.machine))
    if out:
        report.write_accelerator(Folder(out), found, command_text())
    emit(json_path, plain(found))
    if json_path != "-":
        report.show_accelerator(console(), found)


def _peak(text: str) -> tuple[Precision, float]:
    """``bf16=989TFLOP/s`` as a precision and FLOP/s."""
    from ...hardware.precisions import BYTES
    from ...hardware.units import parse

    name, _, rate = (part.strip() for part in text.partition("="))
    if name not in BYTES:
        raise InputError(f"--peak {text}: {name or 'nothing'} is no precision{suggestion(name, BYTES)}")
    try:
        found = parse(rate, "flop / second")
    except ValueError as reason:
        raise InputError(f"--peak {text}: {reason}; needs a compute rate such as {name}=989TFLOP/s") from None
    if not 0 < found < float("inf"):
        raise InputError(f"--peak {text}: must be above zero, such as {name}=989TFLOP/s")
    return cast("Precision", name), found
