"""The command line: the group ``athanor``, and its commands that have no file of their own.

Only click is imported here; each command imports what it needs, so that ``athanor --help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .cli_accuracy import validate
from .cli_cluster import cluster
from .cli_compare import compare
from .cli_fit import fit
from .cli_infer import infer
from .cli_memory import memory
from .cli_plan import plan
from .cli_runtime import calibrate, execute
from .cli_validate import validate_runtime
from .hardware.errors import AthanorError, Ended, InputError
from .inputs import command_text, first, load, named_machine
from .options import collective_options, machine_option, overcommit_option, plan_options, result_options
from .reports.reproductions import NAMES
from .reports.terminal import check_writable, console, emit, progress

if TYPE_CHECKING:
    from .hardware.machine import Machine

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="athanor", prog_name="athanor")
def cli() -> None:
    """Simulate the training of very large models on supercomputers, and run the same schedules over MPI.

    Exit status: 0 success, 1 a job over MPI failed, 2 bad input, 3 the plan does not fit, 124 time limit, 130 interrupted.
    """


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit status."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as wrong:
        _fail(" ".join(wrong.format_message().split()), 2, first())
    except Ended as over:
        _fail(str(over), over.exit_status)
    except AthanorError as wrong:
        _fail(str(wrong), wrong.exit_status, first())
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130, first())
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _fail(message: str, status: int, speaks: bool = True) -> None:
    """One line on stderr, and the exit status; ranks of a job that have nothing to say only end."""
    if message and speaks:
        print(f"athanor: {message}", file=sys.stderr)
    sys.exit(status)


for command in (infer, memory, plan, execute, calibrate, compare, cluster, fit, validate, validate_runtime):
    cli.add_command(command)

# --- commands ------------------------------------------------------------------------------------------------------------


@cli.command()
@machine_option()
@plan_options
@overcommit_option
@result_options
@click.option("-o", "output", metavar="FILE", help="Write the whole run (summary, plan, trace) as JSON.")
def simulate(
    machine: str,
    model: str,
    settings: tuple[str, ...],
    allow_overcommit: bool,
    json_path: str | None,
    out: str | None,
    output: str | None,
    **options: Any,
) -> None:
    """Simulate training steps: time, where it goes, memory, load and links."""
    from .reports.output import Folder
    from .sim.simulate import simulate as simulate_run

    hardware, chosen = load(machine, model, settings)
    check_writable(output, json_path)
    folder = Folder(out) if out else None
    run = simulate_run(hardware, chosen, allow_overcommit=allow_overcommit, **options)
    if output:
        run.save(output)
    if folder:
        from .reports.run_report import write_run

        write_run(folder, run, hardware, chosen, command_text())
    emit(json_path, run.summary())
    if json_path != "-":
        from .reports.tables import show_run

        show_run(console(), run.summary(), run.summary()["links"])


@cli.command()
@machine_option()
@plan_options
@click.option("--step", type=int, default=0, show_default=True, help="The training step to lower.")
@click.option("--json", "json_path", metavar="FILE", help="Write the schedule as JSON; - for standard output.")
def lower(
    machine: str, model: str, settings: tuple[str, ...], step: int, json_path: str | None, **options: Any
) -> None:
    """Print the schedule of a step: every operation, its stream, and what it waits for."""
    from .workloads.lowering import lower as lower_to_schedule

    check_writable(json_path)
    schedule = lower_to_schedule(*load(machine, model, settings), step, **options)
    emit(json_path, json.loads(schedule.to_json()) if json_path else None)
    if json_path != "-":
        click.echo(str(schedule))


@cli.command()
@click.argument("kind", type=click.Choice(["weak", "strong"]))
@machine_option()
@plan_options
@overcommit_option
@result_options
@click.option("--nodes", help="Node counts, such as 6000,12000,96000; by default shares of the plan's.")
def scale(
    kind: Any,
    machine: str,
    model: str,
    settings: tuple[str, ...],
    json_path: str | None,
    out: str | None,
    nodes: str | None,
    **options: Any,
) -> None:
    """Scale a model over node counts: weak (experts and batch grow along) or strong (both stay).

    With --out, finished points are kept: an interrupted study goes on where it stopped.
    """
    from .reports.output import Folder, Points
    from .sim.scaling import Study
    from .sim.scaling import scale as scale_study

    counts = _node_counts(nodes)
    check_writable(json_path)
    hardware, chosen = load(machine, model, settings)
    folder = Folder(out) if out else None
    points = Points(folder) if folder else None
    latest: list[Study] = []
    with progress(f"{kind} scaling", len(counts) if counts else None) as advance:

        def on_point(key: str, study: Study) -> None:
            latest[:] = [study]
            if points:
                points.keep(key, study.points[-1].summary)
            advance(f"{study.points[-1].nodes:,} nodes done")

        try:
            scale_study(
                kind, hardware, chosen, counts, known=points.known if points else None, on_point=on_point, **options
            )
        except KeyboardInterrupt:
            if folder and latest:
                _write_study(folder, latest[0])
            raise
    study = latest[0]
    if folder:
        _write_study(folder, study)
    emit(json_path, study.to_plain())
    if json_path != "-":
        from .reports.tables import study_table

        console().print(study_table(study))


def _write_study(folder: Any, study: Any) -> None:
    from .reports.scaling_report import write_study

    write_study(folder, study, command_text())


def _node_counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.replace("_", "").split(",")]
    except ValueError:
        raise InputError(f"--nodes {text}: write node counts, such as 6000,12000,96000") from None


@cli.command()
@collective_options
@click.option("--sweep", is_flag=True, help="Sizes from 1 KiB and ranks from 2 up: curves, and the best by both.")
@result_options
def collective(
    machine: str,
    operation: str,
    algorithm: str | None,
    ranks: int,
    size: str | None,
    settings: tuple[str, ...],
    sweep: bool,
    json_path: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Simulate one collective: time, bandwidths, what no algorithm could beat, and the use of links.

    With --sweep and --out, finished points are kept: an interrupted sweep goes on where it stopped.
    """
    from .reports import collective_report as report
    from .reports.output import Folder
    from .sim.collective import collective as simulate_one
    from .sim.sweep import compare

    check_writable(json_path)
    nbytes = _nbytes(size or ("64 MiB" if sweep else "1 MiB"))
    hardware = named_machine(machine, settings).with_supernodes_of(options.pop("nodes_per_supernode"))
    if sweep:
        if algorithm:
            raise InputError(f"--algorithm {algorithm}: --sweep takes all of them; leave one of the two out")
        _sweep(hardware, operation, ranks, nbytes, json_path, out, options)
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
    json_path: str | None,
    out: str | None,
    options: dict[str, Any],
) -> None:
    """All algorithms of an operation over sizes and ranks."""
    from .reports.collective_report import show_sweep, write_sweep
    from .reports.output import Folder, Points
    from .sim.sweep import Sweep
    from .sim.sweep import sweep as sweep_study

    folder = Folder(out) if out else None
    points = Points(folder) if folder else None
    latest: list[Sweep] = []
    with progress(f"{operation} sweep") as advance:

        def on_point(key: str, study: Sweep) -> None:
            latest[:] = [study]
            point = study.points[-1]
            if points:
                points.keep(key, point)
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
                **options,
            )
        except KeyboardInterrupt:
            if folder and latest:
                write_sweep(folder, latest[0], command_text())
            raise
    if folder:
        write_sweep(folder, study, command_text())
    emit(json_path, study.plain())
    if json_path != "-":
        show_sweep(console(), study)


def _nbytes(text: str) -> float:
    from .hardware.units import read_bytes

    try:
        return read_bytes(text)
    except ValueError as reason:
        raise InputError(f"--bytes {text}: {reason}") from None


@cli.command()
@click.argument("what", type=click.Choice(NAMES))
@result_options
def reproduce(what: str, json_path: str | None, out: str | None) -> None:
    """Print every published claim beside what Athanor computes, and whether it was fitted or predicted."""
    from .reports.output import Folder
    from .reports.reproduction_report import show_reproduction, write_reproduction
    from .reports.reproductions import reproduce as reproduction

    check_writable(json_path)
    folder = Folder(out) if out else None
    with progress(f"reproduce {what}") as advance:
        found = reproduction(what, advance)
    if folder:
        write_reproduction(folder, found, command_text())
    emit(json_path, found.plain())
    if json_path != "-":
        show_reproduction(console(), found)


@cli.command("list")
@click.argument(
    "what",
    type=click.Choice(
        [
            "machines",
            "models",
            "axes",
            "placements",
            "routers",
            "balancers",
            "precisions",
            "collectives",
            "fabrics",
            "network-models",
        ]
    ),
)
def list_(what: str) -> None:
    """List what there is to choose from."""
    from .reports.catalogue import listing

    console().print(listing(what))


@cli.command()
@click.argument("what", type=click.Choice(["machine", "model"]))
@click.argument("name")
@click.option("--json", "json_path", metavar="FILE", help="Write the numbers as JSON; - for standard output.")
def show(what: str, name: str, json_path: str | None) -> None:
    """Show a machine or a model: every number with its unit and source."""
    from .reports import tables

    check_writable(json_path)
    if what == "machine":
        from .hardware.machine import load_machine

        machine = load_machine(name)
        rows, shown = list(machine.numbers()), tables.machine_table(machine)
    else:
        from .workloads.model import load_model

        model = load_model(name)
        rows, shown = tables.model_rows(model), tables.model_table(model)
    emit(json_path, [dict(zip(("key", "value", "source"), row, strict=True)) for row in rows])
    if json_path != "-":
        console().print(shown)


if __name__ == "__main__":
    main()
