"""Reads files of published runs: one a publication, whose own keys hold for all of its runs that do not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...hardware.errors import InputError, suggestion
from ...hardware.machine import CATALOGUE as MACHINES
from ...hardware.records import build, catalogue_names, read_toml
from ...workloads.model.model import CATALOGUE as MODELS
from ...workloads.plan.option import read_options
from ...workloads.plan.plan import Plan
from .older_table.records import read_table
from .run import COLLECTIVE, PublishedRun

RUNS = Path(__file__).parent / "runs"

TABLES = ("plan", "set", "shape", "convention", "collective", "memory")
"""Keys that are tables: those of a run are put into those of its file, key by key."""

TEXTS = ("id", "publication", "source", "confidence", "metric", "value", "unit", "notes")
"""Keys of a run that is kept and not predicted."""


def read_runs(path: str | Path | None = None) -> list[PublishedRun]:
    """The runs of a file, or of all files of a folder; by default the published ones.

    Raises :class:`InputError` with the file, the run and the key where something is wrong, unknown or missing.
    """
    if path is None:
        return list(published_runs().values())
    place = Path(path)
    files = sorted([*place.glob("*.toml"), *place.glob("*.csv")]) if place.is_dir() else [place]
    if not files:
        raise InputError(f"--data {path}: has no files of runs, *.toml or *.csv")
    return list(_of_files(files).values())


@lru_cache
def published_runs() -> Mapping[str, PublishedRun]:
    """The published runs by name."""
    return _of_files(sorted(RUNS.glob("*.toml")))


def converted(path: Path) -> dict[str, Any]:
    """A CSV table as the table of a file of runs, to be written; raises :class:`InputError` as reading does."""
    if path.suffix.casefold() != ".csv":
        raise InputError(f"{path}: only tables, *.csv, are converted")
    table, reasons = read_table(path), {run.id: run.left_out for run in _of_file(path)}
    runs = [
        each if each.get("left_out", "") == reasons[each["id"]] else _left_out(each, reasons[each["id"]])
        for each in table["run"]
    ]
    return {**table, "run": runs}


def _left_out(run: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return {**{key: value for key, value in run.items() if key in TEXTS}, "left_out": reason}


def _of_files(files: list[Path]) -> dict[str, PublishedRun]:
    found: dict[str, PublishedRun] = {}
    for file in files:
        for run in _of_file(file):
            if run.id in found:
                raise InputError(f"{file}: run {run.id} stands there twice; every run needs an id of its own")
            found[run.id] = run
    return found


def _of_file(file: Path) -> list[PublishedRun]:
    """The runs of a file; a row of the older table that is no run is left out with the reason, where a record is refused."""
    if file.suffix.casefold() != ".csv":
        return _of_table(file, read_toml(file))
    return _of_table(file, read_table(file), refuse=False)


def _of_table(file: Path, table: dict[str, Any], *, refuse: bool = True) -> list[PublishedRun]:
    runs, models, machines = table.pop("run", None), table.pop("models", {}), table.pop("machines", {})
    if not isinstance(runs, list) or not all(isinstance(each, dict) for each in runs) or not runs:
        raise InputError(f"{file}: has no runs; each is a table [[run]]")
    for kind, named in (("models", models), ("machines", machines)):
        if not isinstance(named, dict) or not all(isinstance(each, dict) for each in named.values()):
            raise InputError(f"{file}: {kind}: must be tables, [{kind}.NAME]")
    table.setdefault("publication", file.stem)
    found = []
    for number, each in enumerate(runs, 1):
        try:
            found.append(_run(file, number, {**table}, each, models, machines))
        except InputError as wrong:
            if refuse:
                raise
            reason = str(wrong).removeprefix(f"{file}: run {each['id']}: ")
            found.append(_run(file, number, {**table}, _left_out(each, reason), {}, {}))
    return found


def _run(
    file: Path,
    number: int,
    common: dict[str, Any],
    own: Mapping[str, Any],
    models: Mapping[str, Any],
    machines: Mapping[str, Any],
) -> PublishedRun:
    """One run, with what it shares with the others of its file."""
    where = f"{file}: run {own.get('id', number)}"
    table = {**common, **own}
    for key in TABLES:
        if isinstance(common.get(key), dict) and isinstance(own.get(key), dict):
            table[key] = {**common[key], **own[key]}
    table.setdefault("source", table["publication"])
    if not table.get("left_out"):
        _resolve_machine(file, where, table, machines)
        _resolve_model(file, where, table, models)
    run = build(PublishedRun, table, where)
    if run.left_out:
        return run
    plan = _plan(where, run.plan)
    try:
        _ = run.machine_used
        if run.metric == COLLECTIVE:
            return run.model_copy(update={"plan": plan})
        model = run.model_used
    except InputError as wrong:
        raise InputError(f"{where}: {wrong}") from None
    if run.catalogue_plan:
        if "mesh" not in model.plan:
            raise InputError(f"{where}: catalogue_plan: {model.name} recommends no plan")
    elif "mesh" not in plan:
        raise InputError(f'{where}: plan.mesh is missing; needs the degrees, such as "pp=4,dp=8,tp=8"')
    return run.model_copy(update={"plan": plan})


def _resolve_machine(file: Path, where: str, table: dict[str, Any], machines: Mapping[str, Any]) -> None:
    """A machine of the file as its base and what is set of it; a path from the file's own folder."""
    name = table.get("machine")
    if not isinstance(name, str):
        return
    if name in machines:
        entry = dict(machines[name])
        base = entry.pop("base", None)
        if not isinstance(base, str):
            raise InputError(f'{file}: machines.{name}: base is missing; needs a machine such as "eos-h100"')
        table["set"] = {**entry.pop("set", {}), **table.get("set", {})}
        table["assumed"] = (*entry.pop("assumed", ()), *table.get("assumed", ()))
        if entry:
            raise InputError(f"{file}: machines.{name}.{next(iter(entry))}: no such key; has base, set and assumed")
        name = base
    table["machine"] = _named(file, f"{where}: machine", name, catalogue_names(MACHINES), "machine", list(machines))


def _resolve_model(file: Path, where: str, table: dict[str, Any], models: Mapping[str, Any]) -> None:
    """A model of the file as its base and the keys in which it differs."""
    name = table.get("model")
    if not isinstance(name, str):
        return
    if name in models:
        shape = dict(models[name])
        base = shape.pop("base", None)
        table["shape"] = {**shape, **table.get("shape", {})}
        if base is None:
            return
    else:
        base = name
    known = catalogue_names(MODELS)
    table["base"] = _named(file, f"{where}: model", base, known, "model", list(models))


def _named(file: Path, where: str, name: str, known: list[str], kind: str, own: list[str]) -> str:
    if name in known:
        return name
    if Path(name).suffix == ".toml" or "/" in name:
        path = file.parent / name
        if path.exists():
            return str(path)
        raise InputError(f"{where} {name}: no such file")
    raise InputError(
        f"{where} {name}: no such {kind} in the catalogue, nor in [{kind}s]{suggestion(name, [*own, *known])}"
    )


def _plan(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with every value in its type; raises :class:`InputError` for keys and names that there are not."""
    plan, wrong = read_options(Plan.options(), table, lambda key: f"{where}: plan.{key}")
    if wrong:
        raise InputError(wrong)
    for key, value in plan.items():
        if isinstance(value, str):
            _require_known(f"{where}: plan.{key}", key, value)
    return plan


def _require_known(where: str, key: str, value: str) -> None:
    if reason := _unknown(key, value):
        raise InputError(f"{where}: {reason}")


@lru_cache(maxsize=512)
def _unknown(key: str, value: str) -> str:
    """What is wrong with a name that no registry has; empty where it is known."""
    try:
        options: dict[str, Any] = {"mesh": {"dp": 1}, key: value}
        Plan(**options).check()
    except InputError as wrong:
        return str(wrong).partition(": ")[2]
    return ""
