"""Files of a training: JSON, a row a step, loads of experts, plots and report."""

from __future__ import annotations

from dataclasses import replace

from ...hardware.machine import Machine
from ...workloads.model.model import Model
from ...workloads.results.training_run import TrainingRun
from ..content.inputs import inputs
from ..content.sections import Picture
from ..content.trainings import answer, sections
from ..plots import trainings as plots
from .html_page import write_report
from .output_folder import Folder, all_or_nothing


@all_or_nothing
def write_training(folder: Folder, run: TrainingRun, machine: Machine, model: Model, command: str) -> None:
    """Write ``training.json``, ``steps.csv``, ``loads.csv`` (which ``--router trace:`` replays), plots and ``report.html``.

    Machine and model stand beside them.
    """
    found = run.summary()
    folder.json("training.json", found)
    folder.inputs(machine, model)
    folder.frame("steps.csv", run.to_frame())
    name, entropy = found["model"], found["entropy"]
    drawn = [
        Picture(
            folder.figure("loss", plots.loss({name: run.loss}, entropy, None)), "Single steps, and their running mean."
        ),
        Picture(
            folder.figure("loss_time", plots.loss({name: run.loss}, entropy, {name: run.step_seconds})),
            "The same against the time that steps took.",
        ),
    ]
    first, *others = sections(found)
    parts = [replace(first, figures=drawn), *others]
    if run.load_balance:
        folder.text("loads.csv", run.loads_csv())
        wanted, carried = (
            [each[key] for each in run.load_balance] for key in ("wanted_max_over_mean", "max_over_mean")
        )
        figure = folder.figure("balance", plots.balance(wanted, carried))
        parts[-1] = replace(parts[-1], figures=[Picture(figure, "Each step's fullest rank, of the worst layer.")])
    title = f"{name}: a training"
    parts += inputs(machine, model, found["plan"])
    write_report(folder, title, answer(found), parts, [command], found["warnings"])
