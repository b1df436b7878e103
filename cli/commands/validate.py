"""The command ``athanor validate``."""

from __future__ import annotations

import click

from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text
from ..options import jobs_option, result_options


@click.command()
@click.option(
    "--data",
    metavar="FILE",
    help="Runs in a TOML file, a table of the older form (CSV), or a folder of such files.  [default: published]",
)
@click.option(
    "--convert", metavar="FILE", help="Write the runs of a table (--data FILE.csv) as a TOML file, and predict nothing."
)
@jobs_option()
@result_options
def validate(data: str | None, convert: str | None, jobs: int | None, json_path: str | None, out: str | None) -> None:
    """Predict published measurements, and print the errors by source and overall, beside a null model (a minute or two).

    Rows that cannot be predicted are listed with the reason. After an interrupt, finished rows are shown, and written to --out;
    with --out, finished steps are kept: an interrupted validation continues when it runs again.
    """
    if convert is not None:
        _convert(data, convert)
        return
    from ...hardware.cores import cores
    from ...hardware.kept_points import Points
    from ...reports.pages.accuracy import show_accuracy, write_accuracy
    from ...reports.pages.output_folder import Folder
    from ...reports.published.read_runs import read_runs
    from ...reports.studies.accuracy.memory_rows import with_memory
    from ...reports.studies.accuracy.validate import Accuracy, AccuracyOutcome
    from ...reports.studies.accuracy.validate import validate as predict_all

    rows = list(with_memory(read_runs(data)))
    check_writable(json_path)
    folder = Folder(out) if out else None
    points = Points(folder.path) if folder else None
    done = Accuracy()
    with progress("validate", len(rows)) as advance:

        def on_outcome(outcome: AccuracyOutcome) -> None:
            done.outcomes.append(outcome)
            advance(f"{outcome.row.id} {'done' if outcome.prediction else 'left out'}")

        try:
            found = predict_all(
                rows,
                on_outcome,
                known=points.known if points else None,
                keep=points.keep if points else lambda key, step: None,
                jobs=jobs or cores(),
            )
        except KeyboardInterrupt:
            done.outcomes.sort(key=lambda outcome: rows.index(outcome.row))
            if done.predicted:
                if folder:
                    write_accuracy(folder, done, command_text())
                show_accuracy(console(stderr=json_path == "-"), done)
            raise
    if folder and points:
        points.settle(sorted(points.known))
        write_accuracy(folder, found, command_text())
    emit(json_path, found.plain())
    if json_path != "-":
        show_accuracy(console(), found)


def _convert(data: str | None, target: str) -> None:
    """Write the runs of a table as a file of runs."""
    from pathlib import Path

    import tomli_w

    from ...hardware.errors import InputError
    from ...reports.published.read_runs import converted

    if data is None:
        raise InputError("--convert needs --data FILE.csv")
    table = converted(Path(data))
    check_writable(target)
    try:
        Path(target).write_text(tomli_w.dumps(table), encoding="utf-8")
    except OSError as reason:
        raise InputError(f"--convert {target}: cannot be written: {reason.strerror}") from None
    left = sum("left_out" in run for run in table["run"])
    console().print(f"{len(table['run']):,} runs written to {target}, {left:,} of them left out with their reason")
