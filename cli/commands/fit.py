"""The command ``athanor fit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..options import jobs_option, result_options

if TYPE_CHECKING:
    from ...reports.pages.output_folder import Folder
    from ...reports.studies.accuracy.responses import Ask


@click.command()
@click.argument("what", type=click.Choice(["all", "accelerator", "fabric", "library", "bagualu"]))
@click.argument("name", required=False)
@click.option("--data", metavar="FILE", help="Runs in a TOML file, or a folder of such files.  [default: published]")
@click.option("--all-rows", is_flag=True, help="Fit to all runs, and hold out none.")
@click.option(
    "--leave-out",
    type=click.Choice(["publication", "model"]),
    help="Whose runs are judged under constants fitted without them.  [default: publication]",
)
@click.option("-o", "output", metavar="FILE", help="Write the machine file with the fitted values (bagualu).")
@jobs_option()
@result_options
def fit(
    what: str,
    name: str | None,
    data: str | None,
    all_rows: bool,
    leave_out: str | None,
    output: str | None,
    jobs: int | None,
    json_path: str | None,
    out: str | None,
) -> None:
    """Fit constants that data sheets do not give to published runs (takes minutes).

    ``fit accelerator A100``, ``fit fabric selene`` and ``fit library deepspeed-zero3`` fit constants to the runs about it that
    may be fitted to, from several starts, and print how well these tell them: errors of runs held out, and of each
    publication under constants fitted without it. ``fit all`` makes every fit anew that is in use, and prints what moved,
    the errors of all runs without their publication, and intervals. ``fit bagualu`` prints the machine's [calibration]
    tables; after an interrupt, those that are done. With --out, what was simulated is kept: an interrupted fit continues when it
    runs again.
    """
    check_writable(output, json_path)
    if what == "bagualu":
        if name or data or all_rows or leave_out or jobs or json_path or out:
            raise InputError(
                "fit bagualu: takes no name, --data, --all-rows, --leave-out, --jobs, --json or --out; its targets are"
                " published, -o keeps them"
            )
        _bagualu(output)
        return
    if output:
        raise InputError(f"-o {output}: is for fit bagualu; --out and --json keep what fit {what} finds")
    if what == "all":
        if name or all_rows or leave_out:
            raise InputError("fit all: takes no name, --all-rows or --leave-out; it leaves out each publication")
        _all(data, jobs, json_path, out)
        return
    if not name:
        example = {"accelerator": "an accelerator, such as A100", "fabric": "a machine", "library": "a library"}[what]
        raise InputError(f"fit {what}: name {example}")
    _constants(what, name, data, all_rows, leave_out == "model", jobs, json_path, out)


def _bagualu(output: str | None) -> None:
    from ...reports.studies.reproductions.bagualu.fit import BaguaLuFit, calibration_table, fit_bagualu, write_machine

    fits: list[tuple[str, BaguaLuFit]] = []
    try:
        with progress("fit bagualu", 8) as advance:
            for each in fit_bagualu(advance):
                fits.append(each)  # noqa: PERF402 - kept one by one, for an interruption
    finally:
        if fits:
            click.echo(calibration_table(fits))
            for result, error in fits[0][1].errors.items():
                click.echo(f"# {result}: {error:+.2e} off the published value")
    if output:
        write_machine(Path(output), fits)


def _constants(
    what: str,
    name: str,
    data: str | None,
    all_rows: bool,
    by_model: bool,
    jobs: int | None,
    json_path: str | None,
    out: str | None,
) -> None:
    from ...reports.pages.fit import show_fit, toml_of
    from ...reports.published.read_runs import read_runs
    from ...reports.studies.accuracy.fitting import fit as fit_target
    from ...reports.studies.accuracy.targets import target_of

    target, runs = target_of(what, name), read_runs(data)
    with progress(f"fit {what} {name}") as advance, _kept(out, jobs) as (folder, ask):
        by: Literal["publication", "model"] = "model" if by_model else "publication"
        found = fit_target(target, runs, advance, every=all_rows, by=by, ask=ask)
    if folder:
        with folder.whole():
            folder.json("fit.json", found.plain())
            folder.text("fit.toml", toml_of(found))
    emit(json_path, found.plain())
    if json_path != "-":
        show_fit(console(), found)


def _all(data: str | None, jobs: int | None, json_path: str | None, out: str | None) -> None:
    from ...reports.pages.fit import refit_toml, show_refit
    from ...reports.published.read_runs import read_runs
    from ...reports.studies.accuracy.refit import refit

    runs = read_runs(data)
    with progress("fit all") as advance, _kept(out, jobs) as (folder, ask):
        found = refit(runs, advance, ask=ask)
    if folder:
        with folder.whole():
            folder.json("fit.json", found.plain())
            folder.text("fit.toml", refit_toml(found))
    emit(json_path, found.plain())
    if json_path != "-":
        show_refit(console(), found)


@contextmanager
def _kept(out: str | None, jobs: int | None) -> Iterator[tuple[Folder | None, Ask]]:
    """The folder of results, and who simulates: what a fit before has left in the folder is known."""
    from ...hardware.kept_points import Points
    from ...reports.pages.output_folder import Folder
    from ...reports.studies.accuracy.responses import simulator

    folder = Folder(out) if out else None
    points = Points(folder.path) if folder else None
    if points is None:
        with simulator(jobs) as ask:
            yield None, ask
        return
    with simulator(jobs, points.known, points.keep) as ask:
        yield folder, ask
    points.settle(sorted(points.known))
