"""The command ``athanor compare``."""

from __future__ import annotations

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text
from ..options import result_options


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="PREDICTED MEASURED [PREDICTED MEASURED]...")
@result_options
def compare(files: tuple[str, ...], json_path: str | None, out: str | None) -> None:
    """Tell how far predictions are from runs: by phase, category, kind, operation; bytes, load, links.

    Files come in pairs: what athanor simulate -o wrote, then a run of the same model, mesh, placement and batch. With
    several pairs, also whether the predictions put the configurations in their true order. MEASURED may be the
    training.json of athanor train --out: then its steps are compared, one by one.
    """
    if len(files) == 2 and _compare_training(*files, json_path, out):
        return
    from ...reports.pages.comparison import show_comparison, write_comparison
    from ...reports.pages.output_folder import Folder
    from ...reports.studies.comparison.compare import Comparison, Pair, compare_runs, require_pairs

    require_pairs(files)
    check_writable(json_path)
    folder = Folder(out) if out else None
    command = command_text()
    done: list[Pair] = []
    with progress("compare", len(files) // 2) as advance:

        def on_pair(pair: Pair) -> None:
            done.append(pair)
            if len(files) > 2:
                advance(f"{pair.name} done")

        try:
            found = compare_runs(*files, on_pair=on_pair)
        except KeyboardInterrupt:
            if folder and done:
                write_comparison(folder, Comparison(done), command)
            raise
    if folder:
        write_comparison(folder, found, command)
    emit(json_path, found.plain())
    if json_path != "-":
        show_comparison(console(), found)


def _compare_training(predicted: str, measured: str, json_path: str | None, out: str | None) -> bool:
    """Compare the steps of a training with those of a prediction; False where the second file is no training."""
    from ...reports.studies.predicted_training import PredictedTraining, read_training

    training = read_training(measured)
    if training is None:
        return False
    from ...reports.pages.output_folder import Folder
    from ...workloads.results.run import Run

    check_writable(json_path)
    folder = Folder(out) if out else None
    run = Run.load(predicted)
    try:
        found = PredictedTraining.of(run, training, [*run.totals.warnings, *training["warnings"]])
    except InputError as wrong:
        raise InputError(f"{measured}: {wrong}") from None
    if folder:
        from ...reports.pages.training import write_predicted

        write_predicted(folder, found, training, command_text())
    emit(json_path, found.plain())
    if json_path != "-":
        from ...reports.tables.trainings import show_predicted

        show_predicted(console(), found.plain())
    return True
