"""Run files: machine, model, plan and machine changes of a run in one TOML file, which flags and keywords may override.

``docs/formats/run-file.md`` has every key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError, suggestion
from .option import read_options
from .plan import SIZES, Plan

if TYPE_CHECKING:
    from ...hardware.machine import Machine
    from ..model.model import Model

TEXTS = ("machine", "model", "json", "out", "output")
"""Keys that hold a name or a path."""

COMMANDS = ("lower", "scale", "search", "execute", "train", "infer", "campaign")
"""Tables of options that one command has beside a plan; ``search`` are those of ``athanor plan``."""

KEYS = (*TEXTS, "allow_overcommit", "plan", "set", *COMMANDS)


@dataclass(frozen=True)
class RunFile:
    """What a run file says.

    ``machine`` and ``model`` are names or paths (relative ones from the file's own folder), or a model that an importer has made;
    ``plan`` has the options of
    :class:`~athanor.workloads.plan.plan.Plan` in their types, ``settings`` values of the machine by dotted key, ``results`` where
    results go (``json``, ``out``, ``output``), and ``commands`` the options of single commands, as they stand in the file.
    """

    path: Path
    machine: str | None = None
    model: str | Model | None = None
    allow_overcommit: bool | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> RunFile:
        """Read and check a run file; raises :class:`InputError` with the file, the key, and what is allowed."""
        from ...hardware.records import read_toml

        return cls.of(read_toml(Path(path)), Path(path))

    @classmethod
    def of(cls, table: Mapping[str, Any], path: Path) -> RunFile:
        """Check the table of a run file that is, or might be, at ``path``; raises :class:`InputError` as :meth:`read` does."""
        file = path
        for key, value in table.items():
            if key not in KEYS:
                raise InputError(f"{path}: {key}: no such key of a run file{suggestion(key, KEYS)}")
            if key in TEXTS and not isinstance(value, str):
                raise InputError(f"{path}: {key} is {value}: must be a text")
            if key in ("plan", "set", *COMMANDS) and not isinstance(value, dict):
                raise InputError(f"{path}: {key} is {value}: must be a table, [{key}]")
        overcommit = table.get("allow_overcommit")
        if overcommit is not None and not isinstance(overcommit, bool):
            raise InputError(f"{path}: allow_overcommit is {overcommit}: must be true or false")
        plan, wrong = read_options(Plan.options(), table.get("plan", {}), lambda key: f"{path}: plan.{key}")
        if wrong:
            raise InputError(wrong)
        for key, value in plan.items():
            require_known(f"{file}: plan.{key}", key, value)
        return cls(
            file,
            beside(file, table.get("machine")),
            beside(file, table.get("model")),
            overcommit,
            plan,
            dict(dotted(table.get("set", {}))),
            {key: table[key] for key in ("json", "out", "output") if key in table},
            {key: table[key] for key in COMMANDS if key in table},
        )

    def overridden(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The file's plan with other options in place of its own; options that are None do not count."""
        given = {key: value for key, value in options.items() if value is not None}
        aside = SIZES if SIZES & set(given) else frozenset()
        return {**{key: value for key, value in self.plan.items() if key not in aside}, **given}

    @property
    def chosen_machine(self) -> Machine:
        """The machine with the file's changes; raises :class:`InputError` where there is none."""
        from ...hardware.machine import load_machine

        if self.machine is None:
            raise InputError(f"{self.path}: machine is missing; needs a name of the catalogue or a TOML file")
        return load_machine(self.machine).changed(self.settings)

    @property
    def chosen_model(self) -> str | Model:
        """The model; raises :class:`InputError` where there is none."""
        if self.model is None:
            raise InputError(f"{self.path}: model is missing; needs a name of the catalogue or a TOML file")
        return self.model


def read_run_file(path: str | Path) -> RunFile:
    """What a run file says; ``athanor.simulate("run.toml")`` reads it itself."""
    return RunFile.read(path)


def resolved(
    machine: str | Path | Machine | RunFile,
    model: str | Path | Model | None,
    options: Mapping[str, Any],
    overcommit: bool | None,
) -> tuple[str | Path | Machine, str | Path | Model, dict[str, Any], bool]:
    """Machine, model, options and whether memory may be exceeded, of a call that may name a run file instead.

    Where no model is named, ``machine`` is a run file or its path, whose values hold where ``options`` have none. Raises
    :class:`InputError` for a file that is wrong or lacks one of the two.
    """
    if isinstance(machine, RunFile):
        run = machine
        allowed = run.allow_overcommit if overcommit is None else overcommit
        return run.chosen_machine, run.chosen_model if model is None else model, run.overridden(options), bool(allowed)
    if model is not None:
        return machine, model, dict(options), bool(overcommit)
    if not isinstance(machine, str | Path):
        raise InputError("model: is missing; name a model of the catalogue or a TOML file")
    if Path(machine).suffix != ".toml":
        raise InputError(f"{machine}: names no model; give machine and model, or the path of a run file, run.toml")
    run = RunFile.read(machine)
    allowed = run.allow_overcommit if overcommit is None else overcommit
    return run.chosen_machine, run.chosen_model, run.overridden(options), bool(allowed)


def run_file_text(
    machine: str, model: str, plan: Mapping[str, Any], settings: Mapping[str, Any], allow_overcommit: bool
) -> str:
    """A run file that repeats a run; options of the plan that follow from others are left out."""
    import tomli_w

    from ..mesh.mesh_text import mesh_text

    table: dict[str, Any] = {"machine": machine, "model": model}
    if allow_overcommit:
        table["allow_overcommit"] = True
    told = {key: value for key, value in plan.items() if value is not None}
    table["plan"] = {**told, "mesh": mesh_text(plan["mesh"])}
    if settings:
        table["set"] = dict(settings)
    return tomli_w.dumps(table)


def require_known(where: str, key: str, value: Any) -> None:
    """Refuse names that no registry has, by ``where`` they stand."""
    try:
        Plan(**{"mesh": {"dp": 1}, key: value}).check()
    except InputError as wrong:
        raise InputError(f"{where}: {str(wrong).partition(': ')[2]}") from None


def beside(file: Path, named: str | None) -> str | None:
    """A name of the catalogue as it is; a relative path from the folder of the run file."""
    if named is None or (Path(named).suffix != ".toml" and "/" not in named):
        return named
    return str(file.parent / named)


def dotted(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested tables by dotted key: ``fabric.taper``, quoted or not."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
