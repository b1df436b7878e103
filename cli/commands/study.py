"""``athanor study``: many points over keys of machine, model, plan and campaign."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text, under_mpi
from ..options import jobs_option, result_options
from ..sections import Names, SectionedCommand

if TYPE_CHECKING:
    from ...sim.studies.study.run import StudyResult
    from ...sim.studies.study.study_file import StudyFile

STEPS = 50
"""Times that a study tells how far it is, beside every ten seconds."""

SECONDS = 10.0


@click.command("study", cls=SectionedCommand)
@click.argument("study_file", metavar="STUDY.TOML|NAME")
@click.option(
    "--machine",
    "machines",
    multiple=True,
    type=Names("machines", files=True),
    help="Another machine, or several of them.",
)
@click.option("--model", "models", multiple=True, type=Names("models", files=True), help="Another model, or several.")
@click.option(
    "--array-task", metavar="I/N", help="Do only the I-th of N shares of the points, such as a job array's task."
)
@jobs_option("one a core; under mpiexec its ranks")
@result_options
def study(
    study_file: str,
    machines: tuple[str, ...],
    models: tuple[str, ...],
    array_task: str | None,
    jobs: int | None,
    json_path: str | None,
    out: str | None,
) -> None:
    """Simulate many points: a grid, a list or a sample over any keys of machine, model, plan and campaign.

    STUDY.TOML says what is varied (docs/formats/study.md); NAME is a study that comes with Athanor. Points that fail are rows
    with their reason. With --out, finished points are kept: an interrupted study continues when it runs again. Under mpiexec
    all ranks work.
    """
    from ...sim.studies.study.study_file import StudyFile
    from ...sim.workers import workers

    file = StudyFile.read(study_file)
    for key, values in (("machine", machines), ("model", models)):
        if values:
            file = file.with_values(key, values)
    part = _part(array_task)
    if part[1] > 1 and not out:
        raise InputError(f"--array-task {array_task}: needs --out, the folder where all tasks keep their points")
    # Ranks of a job all come here, so that what the first one refuses ends them too.
    with workers(jobs, mpi=under_mpi()) as crew:
        if crew is None:
            return
        check_writable(json_path)
        result = _run(file, crew, part, out)
    _tell(result, json_path)


def _run(file: StudyFile, crew: Any, part: tuple[int, int], out: str | None) -> StudyResult:
    """The study with progress; an interruption leaves what there is."""
    from ...hardware.kept_points import Points
    from ...reports.pages.output_folder import Folder
    from ...sim.studies.study.run import keep, run_study

    shared = part[1] > 1  # tasks of an array write to one folder, each to its own file
    folder = Folder(out) if out and not shared else None
    kept = Points(Path(out), f"{part[0]}-of-{part[1]}" if shared else "") if out else None
    latest: list[StudyResult] = []
    with progress("study", STEPS) as advance:
        tell = _teller(advance)

        def on_point(key: str, found: dict[str, Any], result: StudyResult) -> None:
            latest[:] = [result]
            if kept:
                keep(kept, key, found)
            tell(result)

        try:
            result = run_study(file, crew, kept.known if kept else None, on_point, part)
        except KeyboardInterrupt:
            if folder and latest:
                _write(folder, latest[0])
            raise
    if folder and kept:
        kept.settle([key for key in dict.fromkeys(result.keys) if key in kept.known])
        _write(folder, result)
    elif out and shared:
        _gather(Path(out), result)
    return result


def _gather(out: Path, result: StudyResult) -> None:
    """Write the tables of a study whose points the tasks of an array have done, if none is left."""
    from ...hardware.kept_points import known_points
    from ...reports.pages.output_folder import Folder

    known = known_points(out)
    result.outcomes |= {key: known[key] for key in result.keys if key in known and key not in result.outcomes}
    if not result.complete:
        return
    try:
        folder = Folder(out)
    except InputError:
        return  # another task that has just ended writes the same
    _write(folder, result)


def _write(folder: Any, result: StudyResult) -> None:
    from ...reports.pages.study import check_plots, write_study_result

    plots = result.file.plots_of(list(result.rows()))
    check_plots(result, plots)
    write_study_result(folder, result, plots, command_text(), result.file.name)


def _tell(result: StudyResult, json_path: str | None) -> None:
    from ...reports.pages.study import show_study

    if json_path:
        emit(
            json_path,
            {
                "points": len(result.points),
                "counts": result.counts(),
                "rows": list(result.rows()),
                "sensitivity": result.sensitivity,
            },
        )
    if json_path != "-":
        show_study(console(), result)


def _teller(advance: Callable[[str], None]) -> Callable[[StudyResult], None]:
    """Says how far a study is, now and then."""
    done, told, begin, last = 0, 0, time.monotonic(), time.monotonic()

    def tell(result: StudyResult) -> None:
        nonlocal done, told, last
        done += 1
        total = len(result.points)
        now = time.monotonic()
        if done < total and done * STEPS < (told + 1) * total and now - last < SECONDS:
            return
        told, last = max(told, done * STEPS // total), now
        rate = done / max(now - begin, 1e-9)
        advance(f"{done:,} of {total:,} points, {rate:,.3g} a second")

    return tell


def _part(text: str | None) -> tuple[int, int]:
    """``2/8`` as (2, 8)."""
    if text is None:
        return 1, 1
    number, slash, shares = text.partition("/")
    if not slash or not number.isdecimal() or not shares.isdecimal() or not 1 <= int(number) <= int(shares):
        raise InputError(f"--array-task {text}: write I/N with I from 1 to N, such as 2/8")
    return int(number), int(shares)
