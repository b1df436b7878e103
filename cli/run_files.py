"""The positional argument RUN.TOML of commands: what the file says holds where flags say nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..hardware.errors import InputError, suggestion
from .sections import RUN


def run_file_argument(table: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The argument that names a run file; ``table`` is the one with the command's own options, where it has some."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            _take_over(ctx, value, table)

    return click.argument(
        "run_file",
        required=False,
        metavar="[RUN.TOML]",
        is_eager=True,
        expose_value=False,
        type=click.Path(),
        callback=read,
    )


def _take_over(ctx: click.Context, path: str, table: str) -> None:
    """Make what a run file says the defaults of a command's flags; raises :class:`InputError` for what it has no flag for."""
    from ..workloads.plan.run_file import RunFile

    run = RunFile.read(path)
    ctx.meta[RUN] = run
    keys = {option.lstrip("-").replace("-", "_"): param for param in ctx.command.params for option in param.opts}
    named = {"machine": run.machine, "model": run.model, "allow_overcommit": run.allow_overcommit}
    file = f"{run.path}: "
    given: dict[str, tuple[str, Any]] = {key: ("", value) for key, value in named.items() if key in keys}
    given |= {key: ("plan.", value) for key, value in run.plan.items()}
    names = {"output": "o"}  # -o has no long form
    given |= {names.get(key, key): ("", value) for key, value in run.results.items() if names.get(key, key) in keys}
    own = [
        key
        for key, param in keys.items()
        if not getattr(param, "of_plan", None)
        and key not in (*named, "set", "json", "out", "o", "h", "help", "run_file")
    ]
    for key, value in run.commands.get(table, {}).items():
        if key not in own:
            raise InputError(f"{file}{table}.{key}: no such option of athanor {ctx.info_name}{suggestion(key, own)}")
        given[key] = (f"{table}.", value)
    defaults: dict[str, Any] = {}
    for key, (where, value) in given.items():
        if value is None:
            continue
        if key not in keys:
            raise InputError(
                f"{file}{where}{key}: athanor {ctx.info_name} takes no {key}; leave it out for this command"
            )
        param = keys[key]
        try:
            if isinstance(value, list) != bool(param.multiple):
                raise click.BadParameter("must be a list" if not isinstance(value, list) else "must be one value")
            if not isinstance(param.type, click.types.BoolParamType) or isinstance(value, bool):
                param.type_cast_value(ctx, value)
            else:
                raise click.BadParameter("must be true or false")
        except click.ClickException as wrong:
            raise InputError(f"{file}{where}{key} is {value}: {wrong.format_message()}") from None
        if param.name and (param.required or not getattr(param, "of_plan", None)):
            defaults[param.name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def repeating(
    folder: Path, machine: str, model: str, settings: Sequence[str], plan: Mapping[str, Any], allow_overcommit: bool
) -> str:
    """The run file, to lie in ``folder``, that repeats a run of the command line."""
    from ..workloads.plan.run_file import run_file_text

    def there(named: str) -> str:
        return os.path.relpath(named, folder) if Path(named).suffix == ".toml" or "/" in named else named

    pairs = (text.partition("=") for text in settings)
    return run_file_text(there(machine), there(model), plan, {key: value for key, _, value in pairs}, allow_overcommit)
