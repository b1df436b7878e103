"""The command ``athanor fit``."""

from __future__ import annotations

from pathlib import Path

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..options import jobs_option, result_options


@click.command()
@click.argument("what", type=click.Choice(["bagualu", "accelerator", "fabric", "library"]))
@click.argument("name", required=False)
@click.option("--data", metavar="FILE", help="Runs in a TOML file, or a folder of such files.  [default: published]")
@click.option("--all-rows", is_flag=True, help="Fit to all rows, and hold out none.")
@click.option("-o", "output", metavar="FILE", help="Write the machine file with the fitted values (bagualu).")
@jobs_option()
@result_options
def fit(
    what: str,
    name: str | None,
    data: str | None,
    all_rows: bool,
    output: str | None,
    jobs: int | None,
    json_path: str | None,
    out: str | None,
) -> None:
    """Fit constants that data sheets do not give to published runs (takes minutes).

    ``fit bagualu`` prints the machine's [calibration] tables; after an interrupt, those that are done. ``fit accelerator A100``,
    ``fit fabric selene`` and ``fit library DeepSpeed`` fit constants to every second row about it. They print the errors of
    the other rows, and the errors with each model and each source left out of the fit.
    """
    check_writable(output, json_path)
    if what == "bagualu":
        if name or data or all_rows or jobs or json_path or out:
            raise InputError(
                "fit bagualu: takes no name, --data, --all-rows, --jobs, --json or --out; its targets are published, -o keeps"
                " them"
            )
        _bagualu(output)
        return
    if not name:
        example = {"accelerator": "an accelerator, such as A100", "fabric": "a machine", "library": "a library"}[what]
        raise InputError(f"fit {what}: name {example}")
    if output:
        raise InputError(f"-o {output}: is for fit bagualu; --out and --json keep what fit {what} finds")
    _constants(what, name, data, all_rows, jobs, json_path, out)


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
    what: str, name: str, data: str | None, all_rows: bool, jobs: int | None, json_path: str | None, out: str | None
) -> None:
    from ...reports.pages.fit import show_fit, toml_of
    from ...reports.pages.output_folder import Folder
    from ...reports.published.read_runs import read_runs
    from ...reports.studies.accuracy.fitting import fit as fit_target
    from ...reports.studies.accuracy.targets import target_of
    from ...sim.workers import cores

    target, rows = target_of(what, name), read_runs(data)
    folder = Folder(out) if out else None
    with progress(f"fit {what} {name}") as advance:
        found = fit_target(target, rows, advance, every=all_rows, jobs=jobs or cores())
    if folder:
        with folder.whole():
            folder.json("fit.json", found.plain())
            folder.text("fit.toml", toml_of(found))
    emit(json_path, found.plain())
    if json_path != "-":
        show_fit(console(), found)
