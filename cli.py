"""The command line: ``athanor simulate``, ``scale``, ``reproduce``, ``fit``, ``list`` and ``show``.

Only click is imported here; each command imports what it needs, so that ``athanor --help`` answers at once.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .hardware.errors import AthanorError, InputError

if TYPE_CHECKING:
    from rich.console import Console

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
    ("--all-to-all", {"help": "linear, two-level."}),
    ("--zero", {"help": "0: all-reduce and full update; hierarchical: sharded update."}),
    ("--recompute", {"help": "none, full."}),
    ("--accounting", {"help": "Memory accounting: apex-o2, or fp32 (24 bytes a parameter)."}),
    ("--overlap", {"help": "none, gradients (reduced beside the backward pass)."}),
    ("--routing", {"help": "adaptive, static."}),
    ("--depth", {"help": "Network: bound, fluid, or auto by size."}),
    ("--jitter", {"type": float, "help": "Relative standard deviation of each operation's time on each node."}),
    ("--speed-spread", {"type": float, "help": "Relative standard deviation of the nodes' speeds."}),
    ("--steps", {"type": int, "help": "Training steps, one after another."}),
    ("--seed", {"type": int, "help": "Seed of routing, jitter and speeds."}),
]


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that describe machine, model and plan."""
    for name, settings in reversed(PLAN_OPTIONS):
        command = click.option(name, **settings)(command)
    command = click.option("--allow-overcommit", is_flag=True, help="Simulate also what does not fit a rank's memory.")(
        command
    )
    command = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value in the machine file."
    )(command)
    command = click.option("--model", required=True, help="Name in the catalogue, or a TOML file.")(command)
    return click.option("--machine", required=True, help="Name in the catalogue, or a TOML file.")(command)


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


def _emit(json_path: str | None, plain: Any) -> None:
    """JSON to a file, or to standard output."""
    text = json.dumps(plain, indent=1)
    if json_path == "-":
        click.echo(text)
    elif json_path:
        try:
            Path(json_path).write_text(text + "\n", encoding="utf-8")
        except OSError as reason:
            raise InputError(f"--json {json_path}: cannot be written: {reason.strerror}") from None


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 150)
    return console


@contextmanager
def _progress(what: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Progress on stderr, a bar on a terminal and lines in a log: call it with what is being worked on."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda text: console.print(f"{what}: {text}")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)

        def advance(text: str) -> None:
            progress.update(task, description=f"{what}: {text}", advance=1)

        yield advance


def _command() -> str:
    return shlex.join(["athanor", *sys.argv[1:]])


# --- commands ------------------------------------------------------------------------------------------------------------


@cli.command()
@plan_options
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
    folder = Folder(out) if out else None
    run = simulate_run(hardware, chosen, allow_overcommit=allow_overcommit, **options)
    if output:
        run.save(output)
    if folder:
        from .reports.run_report import write_run

        write_run(folder, run, hardware, chosen, _command())
    _emit(json_path, run.summary())
    if json_path != "-":
        from .reports.tables import show_run

        show_run(_console(), run.summary(), run.links)


@cli.command()
@click.argument("kind", type=click.Choice(["weak", "strong"]))
@plan_options
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
    hardware, chosen = _load(machine, model, settings)
    folder = Folder(out) if out else None
    points = Points(folder) if folder else None
    latest: list[Study] = []
    with _progress(f"{kind} scaling", len(counts) if counts else None) as advance:

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
    _emit(json_path, study.to_plain())
    if json_path != "-":
        from .reports.tables import study_table

        _console().print(study_table(study))


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

    folder = Folder(out) if out else None
    with _progress(f"reproduce {what}") as advance:
        found = reproduce_bagualu(advance)
    if folder:
        write_reproduction(folder, found, _command())
    _emit(json_path, found.plain())
    if json_path != "-":
        show_reproduction(_console(), found)


@cli.command()
@click.argument("what", type=click.Choice(["bagualu"]))
@click.option("-o", "output", metavar="FILE", help="Write the machine file with the fitted values.")
def fit(what: str, output: str | None) -> None:
    """Fit what was not published to what was, and print the machine's [calibration] tables (takes minutes)."""
    from .hardware.machine import CATALOGUE
    from .reports.fit import calibration_table, fit_bagualu, replace_calibration
    from .reports.published import published

    with _progress(f"fit {what}", 8) as advance:
        best, others = fit_bagualu(advance)
    tables = calibration_table(best, others)
    click.echo(tables)
    for name, error in best.errors.items():
        click.echo(f"# {name}: {error:+.2e} off the published value")
    if output:
        text = (CATALOGUE / f"{published(what)['machine']}.toml").read_text(encoding="utf-8")
        try:
            Path(output).write_text(replace_calibration(text, tables), encoding="utf-8")
        except OSError as reason:
            raise InputError(f"-o {output}: cannot be written: {reason.strerror}") from None


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

    _console().print(table(what, ["name", "what it is"], entries(what), text_columns=2))


@cli.command()
@click.argument("what", type=click.Choice(["machine", "model"]))
@click.argument("name")
@click.option("--json", "json_path", metavar="FILE", help="Write the numbers as JSON; - for standard output.")
def show(what: str, name: str, json_path: str | None) -> None:
    """Show a machine or a model: every number with its unit and source."""
    from .reports import tables

    if what == "machine":
        from .hardware.machine import load_machine

        machine = load_machine(name)
        rows, shown = list(machine.numbers()), tables.machine_table(machine)
    else:
        from .workloads.model import load_model

        model = load_model(name)
        rows, shown = tables.model_rows(model), tables.model_table(model)
    _emit(json_path, [dict(zip(("key", "value", "source"), row, strict=True)) for row in rows])
    if json_path != "-":
        _console().print(shown)


if __name__ == "__main__":
    main()
