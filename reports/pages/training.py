"""Files of a training: JSON, a row a step, loads of experts, plots and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...hardware.machine import Machine
from ...workloads.model.model import Model
from ...workloads.results.training_run import TrainingRun
from ..content.inputs import inputs
from ..content.sections import Picture, Section
from ..content.trainings import answer, predicted_section, sections
from ..plots import trainings as plots
from ..studies.predicted_training import PredictedTraining
from .html_page import write_report
from .output_folder import Folder, all_or_nothing


@all_or_nothing
def write_training(
    folder: Folder,
    run: TrainingRun,
    machine: Machine,
    model: Model,
    command: str,
    predicted: PredictedTraining | None = None,
) -> None:
    """Write ``training.json``, ``steps.csv``, ``loads.csv`` (which ``--router trace:`` replays), plots and ``report.html``.

    Machine and model stand beside them. What was ``predicted`` of its steps is in the JSON, in ``predicted.csv``, a plot and the
    report.
    """
    found = run.summary() | ({"predicted": predicted.plain()} if predicted else {})
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
    if predicted is not None:
        parts.append(drawn_prediction(folder, predicted))
    title = f"{name}: a training"
    parts += inputs(machine, model, found["plan"])
    write_report(folder, title, answer(found), parts, [command], found["warnings"])


def drawn_prediction(folder: Folder, predicted: PredictedTraining) -> Section:
    """The section of predicted steps, whose rows and plot are written beside it."""
    folder.frame("predicted.csv", predicted.to_frame())
    figure = folder.figure("predicted", plots.predicted(predicted.first, predicted.predicted, predicted.measured))
    picture = Picture(figure, "Each step as it was measured, and as it was predicted from its recorded loads.")
    return replace(predicted_section(predicted.plain()), figures=[picture])


@all_or_nothing
def write_predicted(folder: Folder, predicted: PredictedTraining, training: Mapping[str, Any], command: str) -> None:
    """Write ``comparison.json``, ``predicted.csv``, the plot and ``report.html`` of a training beside its prediction."""
    folder.json("comparison.json", predicted.plain())
    part = drawn_prediction(folder, predicted)
    title = f"Predicted against measured: a training of {training['model']}"
    write_report(folder, title, answer(training), [part], [command], list(predicted.notes))
