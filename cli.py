"""The command line: ``athanor simulate``, ``lower``, ``scale``, ``reproduce``, ``fit``, ``list`` and ``show``.

Only click is imported here; each command imports what it needs, so that ``athanor --help`` answers at once.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .hardware.errors import AthanorError, InputError
from .reports.terminal import check_writable, console, emit, progress

if TYPE_CHECKING:
    from .hardware.machine import Machine
    from .workloads.model import Model

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="athanor", prog_name="athanor")
def cli() -> None:
    """Simulate the training of very large models on supercomputers.

    Exit status: 0 success, 2 bad input, 3 the plan does not fit, 130 interrupted.
    """


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit status."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as wrong:
        _fail(" ".join(wrong.format_message().split()), 2)
    except AthanorError as wrong:
        _fail(str(wrong), wrong.exit_status)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _fail(message: str, status: int) -> None:
    print(f"athanor: {message}", file=sys.stderr)
    sys.exit(status)


# --- options that commands share ---------------------------------------------------------------------------------------


def _mesh(text: str) -> dict[str, int]:
    """``axis=size,…`` as a dictionary."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if not size.lstrip("-").isdigit() or axis.strip() in sizes:
            raise InputError(f"--mesh {text}: write axis=size,..., each axis once, for example ep=400,dp=240")
        sizes[axis.strip()] = int(size)
    return sizes


PLAN_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "--mesh",
        {"type": _mesh, "metavar": "AXIS=N,...", "help": "Ranks along each axis, outermost first: ep=400,dp=240."},
    ),
    (
        "--placement",
        {"help": "moda, opposite, block:AXIS,... or AXIS=LEVEL,... (core_group, node, supernode, joined by +)."},
    ),
    ("--ranks-per-node", {"type": int, "help": "Ranks on a node: 1, or one a core group."}),
    ("--nodes-per-supernode", {"type": int, "help": "Nodes used of each supernode; the others stay idle."}),
    ("--tokens-per-rank", {"type": int, "help": "Tokens of a rank in a step."}),
    ("--global-batch", {"type": int, "help": "Sequences of all ranks in a step, instead of --tokens-per-rank."}),
    ("--micro-batch", {"type": int, "help": "Sequences of a rank in a micro-batch."}),
    ("--seq-len", {"type": int, "help": "Tokens of a sequence."}),
    ("--top-k", {"type": int, "help": "Experts that a token goes to."}),
    ("--precision", {"help": "O0, O1, O2, O3, layerwise, or a schedule such as O0:100,layerwise."}),
    ("--router", {"help": "uniform, zipf:S, table:NAME or table:FILE.csv."}),
    ("--drift", {"type": float, "help": "Share of the router's popularity that changes each step."}),
    ("--balancer", {"help": "none, capacity:F, swipe."}),
    ("--all-to-all", {"help": "linear, two-level, pairwise-shift, pairwise-xor, bruck."}),
    ("--zero", {"help": "0: all-reduce and full update; hierarchical: sharded update."}),
    ("--recompute", {"help": "none, full."}),
    ("--accounting", {"help": "Memory accounting: apex-o2, or fp32 (24 bytes a parameter)."}),
    ("--overlap", {"help": "none, gradients (reduced beside the backward pass)."}),
    ("--routing", {"help": "What the fabric knows of adaptive, static, minimal, valiant."}),
    ("--depth", {"help": "Network: bound, fluid, message, or auto by size."}),
    ("--jitter", {"type": float, "help": "Relative standard deviation of each operation's time on each node."}),
    ("--speed-spread", {"type": float, "help": "Relative standard deviation of the nodes' speeds."}),
    ("--steps", {"type": int, "help": "Training steps, one after another."}),
    ("--seed", {"type": int, "help": "Seed of routing, jitter and speeds."}),
]


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that describe machine, model and plan."""
    for name, settings in reversed(PLAN_OPTIONS):
        command = click.option(name, **settings)(command)
    command = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value in the machine file."
    )(command)
    command = click.option("--model", required=True, help="Name in the catalogue, or a TOML file.")(command)
    return click.option("--machine", required=True, help="Name in the catalogue, or a TOML file.")(command)


def overcommit_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option to go beyond a rank's memory."""
    text = "Simulate also what does not fit a rank's memory."
    return click.option("--allow-overcommit", is_flag=True, help=text)(command)


def result_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where results go."""
    command = click.option("--out", metavar="DIR", help="Folder for JSON, CSV, plots and the HTML report.")(command)
    return click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; - for standard output.")(
        command
    )


def _load(machine: str, model: str, settings: tuple[str, ...]) -> tuple[Machine, Model]:
    """Machine and model of the command line, with the machine's --set values."""
    from .hardware.machine import load_machine
    from .workloads.model import load_model

    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise InputError(f"--set {key}: write KEY=VALUE, for example fabric.taper=1/1")
    return load_machine(machine).changed({key: value for key, _, value in pairs}), load_model(model)


def _command() -> str:
    return shlex.join(["athanor", *sys.argv[1:]])


# --- commands ------------------------------------------------------------------------------------------------------------


@cli.command()
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

    hardware, chosen = _load(machine, model, settings)
    check_writable(output, json_path)
    folder = Folder(out) if out else None
    run = simulate_run(hardware, chosen, allow_overcommit=allow_overcommit, **options)
    if output:
        run.save(output)
    if folder:
        from .reports.run_report import write_run

        write_run(folder, run, hardware, chosen, _command())
    emit(json_path, run.summary())
    if json_path != "-":
        from .reports.tables import show_run

        show_run(console(), run.summary(), run.summary()["links"])


@cli.command()
@plan_options
@click.option("--step", type=int, default=0, show_default=True, help="The training step to lower.")
@click.option("--json", "json_path", metavar="FILE", help="Write the schedule as JSON; - for standard output.")
def lower(
    machine: str, model: str, settings: tuple[str, ...], step: int, json_path: str | None, **options: Any
) -> None:
    """Print the schedule of a step: every operation, its stream, and what it waits for."""
    from .workloads.lowering import lower as lower_to_schedule

    check_writable(json_path)
    schedule = lower_to_schedule(*_load(machine, model, settings), step, **options)
    emit(json_path, json.loads(schedule.to_json()) if json_path else None)
    if json_path != "-":
        click.echo(str(schedule))


@cli.command()
@click.argument("kind", type=click.Choice(["weak", "strong"]))
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
    hardware, chosen = _load(machine, model, settings)
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

    write_study(folder, study, _command())


def _node_counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.replace("_", "").split(",")]
    except ValueError:
        raise InputError(f"--nodes {text}: write node counts, such as 6000,12000,96000") from None


@cli.command()
@click.argument("what", type=click.Choice(["bagualu"]))
@result_options
def reproduce(what: str, json_path: str | None, out: str | None) -> None:
    """Print every published claim beside what Athanor computes, and whether it was fitted or predicted."""
    from .reports.output import Folder
    from .reports.reproduce import reproduce_bagualu
    from .reports.reproduction_report import show_reproduction, write_reproduction

    check_writable(json_path)
    folder = Folder(out) if out else None
    with progress(f"reproduce {what}") as advance:
        found = reproduce_bagualu(advance)
    if folder:
        write_reproduction(folder, found, _command())
    emit(json_path, found.plain())
    if json_path != "-":
        show_reproduction(console(), found)


@cli.command()
@click.argument("what", type=click.Choice(["bagualu"]))
@click.option("-o", "output", metavar="FILE", help="Write the machine file with the fitted values.")
def fit(what: str, output: str | None) -> None:
    """Fit what was not published to what was, and print the machine's [calibration] tables (takes minutes).

    Interrupted, it prints the fits that are done.
    """
    from .reports.fit import Fit, calibration_table, fit_bagualu, write_machine

    check_writable(output)
    fits: list[tuple[str, Fit]] = []
    try:
        with progress(f"fit {what}", 8) as advance:
            for each in fit_bagualu(advance):
                fits.append(each)  # noqa: PERF402 - kept one by one, for an interruption
    finally:
        if fits:
            click.echo(calibration_table(fits))
            for name, error in fits[0][1].errors.items():
                click.echo(f"# {name}: {error:+.2e} off the published value")
    if output:
        write_machine(Path(output), fits)


@cli.command("list")
@click.argument(
    "what",
    type=click.Choice(
        ["machines", "models", "axes", "placements", "routers", "balancers", "precisions", "collectives"]
    ),
)
def list_(what: str) -> None:
    """List what there is to choose from."""
    from .reports.catalogue import entries
    from .reports.tables import table

    console().print(table(what, ["name", "what it is"], entries(what), text_columns=2))


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
