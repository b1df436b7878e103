"""``athanor train``: many steps over MPI, on data."""

from __future__ import annotations

from typing import Any

import click

from ...reports.tables.terminal import console, emit
from ..inputs import command_text
from ..jobs import JobCommand, JobOutput, progress_of_first, refused_by_all
from ..options import (
    job_options,
    machine_option,
    overcommit_option,
    plan_options,
    result_options,
)
from ..run_files import run_file_argument


@click.command(cls=JobCommand)
@run_file_argument("train")
@machine_option("laptop")
@plan_options()
@overcommit_option
@job_options(24 * 3600.0)
@click.option(
    "--data",
    default="made",
    show_default=True,
    metavar="FILE|made",
    help="A file, read byte by byte; made: a seeded corpus whose entropy is known.",
)
@click.option(
    "--checkpoint-every", type=int, metavar="N", help="Write a checkpoint into --out every N steps, and at the end."
)
@click.option("--resume", metavar="DIR", help="Go on with the last checkpoint of a run, on any mesh.")
@click.option(
    "--loss-scale",
    default="",
    metavar="dynamic|none|N",
    help="What the loss is multiplied by before its gradients are made.  [default: dynamic where there are halves]",
)
@click.option(
    "--balance-loss",
    type=float,
    default=0.0,
    show_default=True,
    help="Weight of the auxiliary loss for balance (Switch: 0.01).",
)
@click.option(
    "--z-loss", type=float, default=0.0, show_default=True, help="Weight of the router z-loss (ST-MoE: 0.001)."
)
@click.option(
    "--gate-bias",
    type=float,
    default=0.0,
    show_default=True,
    help="Rate at which biases of experts follow their load, which then choose (loss-free balancing: 0.001).",
)
@click.option(
    "--predict",
    is_flag=True,
    help="Afterwards simulate each step with its recorded loads, on the machine, and tell how far the measured ones are.",
)
@result_options
def train(
    machine: str,
    model: str,
    settings: tuple[str, ...],
    allow_overcommit: bool,
    expect_ranks: int | None,
    time_limit: float,
    data: str,
    checkpoint_every: int | None,
    resume: str | None,
    loss_scale: str,
    balance_loss: float,
    z_loss: float,
    gate_bias: float,
    predict: bool,
    json_path: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Train a model over MPI, for --steps steps: mpiexec -n P athanor train …, or alone in one process.

    Loss, gradient norm, times and the loads of experts are recorded. Tokens choose experts by a gate that learns, unless --router
    names another.
    """
    from ...mpi_runtime.job.environment import prepare

    prepare()
    from ...mpi_runtime.trainer.train import train as train_run
    from ..inputs import load

    with refused_by_all():
        hardware, chosen = load(machine, model, settings)
    written = JobOutput(out, json_path)
    with progress_of_first("train") as advance:
        run = train_run(
            hardware,
            chosen,
            data=data,
            out=out,
            checkpoint_every=checkpoint_every,
            resume=resume,
            loss_scale=loss_scale,
            balance_loss=balance_loss,
            z_loss=z_loss,
            gate_bias=gate_bias,
            allow_overcommit=allow_overcommit,
            expect_ranks=expect_ranks,
            time_limit=time_limit,
            ready=written.ready,
            advance=advance,
            **options,
        )
    if run is None:
        return
    predicted = None
    if predict:
        from ...reports.studies.predicted_training import predicted_training

        predicted = predicted_training(hardware, chosen, run)
    if written.folder is not None:
        from ...reports.pages.training import write_training

        write_training(written.folder, run, hardware, chosen, command_text(), predicted)
    found = run.summary() | ({"predicted": predicted.plain()} if predicted else {})
    emit(json_path, found)
    if json_path != "-":
        from ...reports.tables.trainings import show_training

        show_training(console(), found)
