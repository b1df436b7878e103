"""The options that commands share: of a training plan, of a collective, and of where results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import click

from ..hardware.errors import InputError
from ..workloads.mesh.mesh_text import mesh_sizes
from ..workloads.plan.option import Option, grouped
from ..workloads.plan.plan import Plan
from .sections import RESULTS, Names, SectionedOption, run_file

Command = Callable[..., Any]

MACHINE = "Machine and model"


def plan_options(
    chosen: Callable[[Option], bool] = lambda option: True, model: bool = True
) -> Callable[[Command], Command]:
    """Model, machine's changes and the options of :class:`Plan`, or those of them that are ``chosen``, under their groups."""

    def decorate(command: Command) -> Command:
        for _, members in reversed(list(grouped(Plan.options()))):
            for option in reversed(members):
                if chosen(option):
                    command = _of_plan(option)(command)
        command = set_option(command)
        return model_option(command) if model else command

    return decorate


def required_option(name: str) -> Callable[[Command], Command]:
    """An option of the plan that a command cannot do without."""
    return _of_plan(replace(Plan.options()[name], otherwise="none, it has to be given"), required=True)


def declared_options(options: Mapping[str, Option]) -> Callable[[Command], Command]:
    """Options that are declared as a plan's are, but of another thing, under their groups."""

    def decorate(command: Command) -> Command:
        for _, members in reversed(list(grouped(options))):
            for option in reversed(members):
                command = _declared(option, option=option)(command)
        return command

    return decorate


def _of_plan(option: Option, required: bool = False) -> Callable[[Command], Command]:
    """Click's option of a plan's option."""
    return _declared(option, of_plan=option, required=required)


def _declared(told: Option, **more: Any) -> Callable[[Command], Command]:
    """Click's option of a declared one; its value is checked by what it is declared for."""
    how: dict[str, Any] = {"default": None, "section": told.group, **more}
    if told.type is bool:
        return click.option(f"{told.flag}/--no-{told.flag[2:]}", cls=SectionedOption, **how)
    if told.type in (int, float):
        how["type"] = told.type
    elif told.name == "mesh":
        how["type"] = _Mesh(told.names)
    else:
        how["type"] = Names(told.choices)
    return click.option(told.flag, cls=SectionedOption, metavar=_form(told), **how)


def _form(option: Option) -> str:
    """What stands for a value in the help: the option's own word, its unit, or what kind of value it is."""
    kinds = {int: "N", float: "X"}
    return option.form or option.unit.upper() or kinds.get(option.type, "NAME")


class _Mesh(Names):
    """The sizes of a mesh by axis."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        """``ep=400,dp=240`` as a dictionary."""
        try:
            return mesh_sizes(value)
        except ValueError as reason:
            raise InputError(f"--mesh {value}: {reason}") from None


COLLECTIVE_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "--op",
        {
            "required": True,
            "type": Names("collectives"),
            "help": "all-to-all, all-reduce, ...: athanor list collectives.",
        },
    ),
    (
        "--algorithm",
        {
            "type": Names("collective-algorithms"),
            "help": "linear, pairwise-shift, ring, ...; by default all that can run, fastest first.",
        },
    ),
    ("--ranks", {"type": int, "required": True, "help": "Ranks; with --sweep the most."}),
    (
        "--bytes",
        {
            "metavar": "SIZE",
            "help": "To each other rank for an all-to-all, else a rank's vector: 1MiB, 4096; with --sweep the most."
            "  [default: 1 MiB; 64 MiB with --sweep]",
        },
    ),
    ("--placement", {"default": "block", "show_default": True, "help": "block, or scatter over the supernodes."}),
    ("--ranks-per-node", {"type": int, "help": "Ranks on a node, which divide its core groups.  [default: 1]"}),
    ("--nodes-per-supernode", {"type": int, "help": "Make the machine's supernodes that large."}),
    (
        "--routing",
        {"help": "How the fabric chooses among several paths: one of its own routings (athanor list fabrics)."},
    ),
    ("--network-model", {"default": "maxmin", "show_default": True, "help": "maxmin, cm02, lv08."}),
    ("--depth", {"default": "auto", "show_default": True, "help": "bound, links, fluid, message, or auto by size."}),
    ("--check-symmetry", {"is_flag": True, "help": "Also simulate every rank by itself, and compare."}),
]


def collective_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that describe a collective."""
    for name, settings in reversed(COLLECTIVE_OPTIONS):
        target = {"--op": ["operation"], "--bytes": ["size"]}.get(name, [])
        command = click.option(name, *target, cls=SectionedOption, section="Collective", **settings)(command)
    return machine_option()(set_option(command))


def model_option(command: Command) -> Command:
    """The option that names the model."""
    text = "A model of the catalogue (athanor list models), or a TOML file."
    kind = Names("models", files=True)
    return click.option("--model", cls=SectionedOption, section=MACHINE, required=True, type=kind, help=text)(command)


def machine_option(default: str | None = None) -> Callable[[Command], Command]:
    """The option that names the machine, which is required where there is no default."""
    text = "A machine of the catalogue (athanor list machines), or a TOML file."
    how: dict[str, Any] = {"required": True} if default is None else {"default": default, "show_default": True}
    kind = Names("machines", files=True)
    return click.option("--machine", cls=SectionedOption, section=MACHINE, type=kind, help=text, **how)


def set_option(command: Command) -> Command:
    """The option that changes values of the machine."""
    text = "Another value in the machine file, such as nodes=512; athanor show machine NAME lists the keys."
    return click.option(
        "--set",
        "settings",
        cls=SectionedOption,
        section=MACHINE,
        multiple=True,
        metavar="KEY=VALUE",
        help=text,
        callback=_with_the_files,
    )(command)


def _with_the_files(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The run file's changes of the machine, then those of the command line, which go last and so hold."""
    run = run_file(ctx)
    return (*(f"{key}={text}" for key, text in run.settings.items()), *value) if run else value


def job_options(limit: float) -> Callable[[Command], Command]:
    """The options of jobs that run over MPI, and end after ``limit`` seconds where nothing else is said."""

    def decorate(command: Command) -> Command:
        text = "End the job after so many seconds."
        command = click.option("--time-limit", type=float, default=limit, show_default=True, help=text)(command)
        text = "Refuse to run if the number of ranks is not this one."
        return click.option("--expect-ranks", type=int, help=text)(command)

    return decorate


runtime_options = job_options(600.0)
"""Those of jobs that take minutes."""


def overcommit_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option to go beyond a rank's memory."""
    text = "Continue even if a rank's memory is too small, as if it had enough."
    return click.option("--allow-overcommit", is_flag=True, help=text)(command)


def jobs_option(default: str = "one a core") -> Callable[[Command], Command]:
    """The option that says how many processes work on what can be done at once."""
    text = f"Processes to work with, once that takes longer than a second.  [default: {default}]"
    return click.option("--jobs", metavar="N", type=int, callback=_at_least_one, help=text)


def _at_least_one(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise InputError(f"--{param.name} {value}: must be at least 1")
    return value


def json_option(about: str = "Write the result as JSON; - for standard output.") -> Callable[[Command], Command]:
    """The option that writes the result as JSON."""
    return click.option("--json", "json_path", cls=SectionedOption, section=RESULTS, metavar="FILE", help=about)


def run_file_option(command: Command) -> Command:
    """The option that keeps a whole run."""
    text = "Write the whole run (summary, plan, trace) as JSON, which athanor compare reads."
    return click.option("-o", "output", cls=SectionedOption, section=RESULTS, metavar="FILE", help=text)(command)


def result_options(command: Command) -> Command:
    """The options that say where results go."""
    text = "Folder for JSON, CSV, plots and the HTML report."
    command = click.option("--out", cls=SectionedOption, section=RESULTS, metavar="DIR", help=text)(command)
    return json_option()(command)
