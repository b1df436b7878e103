"""``athanor collective``: one collective by itself, or all algorithms over sizes and ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text, named_machine
from ..options import collective_options, jobs_option, result_options
from ..sections import SectionedCommand

if TYPE_CHECKING:
    from ...hardware.machine import Machine


@click.command(cls=SectionedCommand)
@collective_options
@click.option(
    "--sweep",
    is_flag=True,
    help="Simulate sizes from 1 KiB and ranks from 2 up: curves, and the fastest algorithms.",
)
@jobs_option("one a core; only --sweep takes several")
@result_options
def collective(
    machine: str,
    operation: str,
    algorithm: str | None,
    ranks: int,
    size: str | None,
    settings: tuple[str, ...],
    sweep: bool,
    jobs: int | None,
    json_path: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Simulate one collective: time, bandwidths, the bound that no algorithm can beat, and the use of links.

    With --sweep and --out, finished points are kept: an interrupted sweep continues when it runs again.
    """
    from ...reports.pages import collective as report
    from ...reports.pages.output_folder import Folder
    from ...sim.studies.collective import collective as simulate_one
    from ...sim.studies.collective_sweep import compare

    check_writable(json_path)
    nbytes = _nbytes(size or ("64 MiB" if sweep else "1 MiB"))
    hardware = named_machine(machine, settings).with_supernodes_of(options.pop("nodes_per_supernode"))
    if sweep:
        if algorithm:
            raise InputError(f"--algorithm {algorithm}: --sweep takes all of them; leave one of the two out")
        _sweep(hardware, operation, ranks, nbytes, jobs, json_path, out, options)
        return
    folder = Folder(out) if out else None
    if algorithm:
        found = simulate_one(hardware, operation, algorithm, ranks, nbytes, **options)
        results, plain = [found], found.plain()
    else:
        compared = compare(hardware, operation, ranks, nbytes, **options)
        results, plain = compared.results, compared.plain()
    if folder:
        report.write_results(folder, results, plain, hardware, command_text())
    emit(json_path, plain)
    if json_path != "-" and algorithm:
        report.show_result(console(), found)
    elif json_path != "-":
        report.show_comparison(console(), compared)


def _sweep(
    machine: Machine,
    operation: str,
    ranks: int,
    nbytes: float,
    jobs: int | None,
    json_path: str | None,
    out: str | None,
    options: dict[str, Any],
) -> None:
    """All algorithms of an operation over sizes and ranks."""
    from ...hardware.cores import cores
    from ...hardware.kept_points import Points
    from ...reports.pages.collective import show_sweep, write_sweep
    from ...reports.pages.output_folder import Folder
    from ...sim.studies.collective_sweep import CollectiveSweep
    from ...sim.studies.collective_sweep import sweep as sweep_study

    folder = Folder(out) if out else None
    points = Points(folder.path) if folder else None
    latest: list[CollectiveSweep] = []
    names: dict[tuple[Any, ...], str] = {}
    with progress(f"{operation} sweep") as advance:

        def on_point(key: str, study: CollectiveSweep) -> None:
            latest[:] = [study]
            point = study.newest
            if points:
                points.keep(key, point)
            names[point["ranks"], point["algorithm"], point["bytes"]] = key
            if point["bytes"] == study.sizes[-1]:
                advance(f"{point['algorithm']} on {point['ranks']:,} ranks done")

        try:
            study = sweep_study(
                machine,
                operation,
                ranks,
                nbytes,
                known=points.known if points else None,
                on_point=on_point,
                jobs=jobs or cores(),
                **options,
            )
        except KeyboardInterrupt:
            if folder and latest:
                write_sweep(folder, latest[0].in_order(), command_text())
            raise
    if folder and points:
        points.settle([names[each["ranks"], each["algorithm"], each["bytes"]] for each in study.points])
        write_sweep(folder, study, command_text())
    emit(json_path, study.plain())
    if json_path != "-":
        show_sweep(console(), study)


def _nbytes(text: str) -> float:
    from ...hardware.units import read_bytes

    try:
        return read_bytes(text)
    except ValueError as reason:
        raise InputError(f"--bytes {text}: {reason}") from None
