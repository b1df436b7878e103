"""A point of a study: its exact inputs, and what comes of them, be it a reason why nothing does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from ....hardware.errors import AthanorError, DoesNotFit, InputError, NeverDone
from ....hardware.machine import Machine, load_machine
from ....hardware.own_code import reason_in_own_code
from ....hardware.units import read_bytes
from ....hardware.version import key
from ....workloads.mesh.mesh_text import mesh_text
from ....workloads.model.model import Model, load_model
from ....workloads.plan.kept import KeptWork
from ....workloads.plan.option import Option, read_options
from ....workloads.plan.plan import Plan
from ....workloads.plan.run_file import require_known
from ....workloads.plan.setting import Setting
from ....workloads.results.run import VOLATILE
from ...campaign.campaign_plan import CampaignPlan

Table = Mapping[str, Any]

COMMANDS = ("simulate", "campaign", "collective", "memory")
"""What a study can do with each of its points."""

OBJECTIVES = {
    "simulate": "step_seconds",
    "campaign": "wall_clock_seconds.median",
    "collective": "seconds",
    "memory": "total",
}
"""What is looked at where a study names nothing else; less is better."""


KEPT = KeptWork()
"""What points have in common, in this process."""


@dataclass(frozen=True)
class Trial:
    """The inputs of a point.

    ``settings`` are values of the machine by dotted key and ``changes`` those of the model; ``plan`` are options of a plan, and
    ``own`` those of the command alone.
    """

    command: str
    machine: str | Machine
    model: str | Model | None
    settings: Table = field(default_factory=dict)
    changes: Table = field(default_factory=dict)
    plan: Table = field(default_factory=dict)
    own: Table = field(default_factory=dict)
    overcommit: bool = False

    def key(self) -> str:
        """What decides the result of this point."""
        machine, model = self.machine, self.model
        whose = _machine_identity(machine) if isinstance(machine, str) else key(machine.model_dump(mode="json"))
        what = _model_identity(model) if isinstance(model, str) else model and key(model.model_dump(mode="json"))
        return key(
            "study", self.command, whose, what, self.settings, self.changes, self.plan, self.own, self.overcommit
        )

    def inputs(self) -> dict[str, Any]:
        """As plain data: names of machine and model, and all that differs from what these say."""
        named = {"command": self.command, "machine": name_of(self.machine), "model": name_of(self.model)}
        tables = {"set": self.settings, "model_changes": self.changes, "plan": self.plan, self.command: self.own}
        more: dict[str, Any] = {"allow_overcommit": True} if self.overcommit else {}
        return {**named, **{name: dict(table) for name, table in tables.items() if table}, **more}


def evaluate(trial: Trial) -> dict[str, Any]:
    """What a point comes to: ``status`` (ok, refused, does not fit, failed), the ``reason``, and its ``figures``.

    Nothing is raised: a point that fails is a result too.
    """
    try:
        return {"status": "ok", "reason": "", "figures": dict(flat(_FIGURES[trial.command](trial)))}
    except (DoesNotFit, NeverDone) as reason:
        return {"status": "does not fit", "reason": str(reason), "figures": {}}
    except AthanorError as reason:
        return {"status": "refused", "reason": str(reason), "figures": {}}
    except Exception as reason:  # a point's own, which the others do not need to share
        told = reason_in_own_code(reason) or f"{type(reason).__name__}: {' '.join(str(reason).split())}"
        return {"status": "failed", "reason": told, "figures": {}}


def machine_of(trial: Trial) -> Machine:
    """The machine of a point."""
    named = _machine(trial.machine) if isinstance(trial.machine, str) else trial.machine
    return named.changed(trial.settings) if trial.settings else named


def model_of(trial: Trial) -> Model:
    """The model of a point; raises :class:`InputError` where there is none."""
    if trial.model is None:
        raise InputError("model: is missing; needs a name of the catalogue or a TOML file")
    named = _model(trial.model) if isinstance(trial.model, str) else trial.model
    return named.changed(trial.changes)


@lru_cache(maxsize=64)
def _machine(name: str) -> Machine:
    return load_machine(name)


@lru_cache(maxsize=64)
def _model(name: str) -> Model:
    return load_model(name)


def forget() -> None:
    """Forget the machines and models that were read from files: these may have changed since."""
    for each in (_machine, _model, _machine_identity, _model_identity):
        each.cache_clear()
    KEPT.clear()


@lru_cache(maxsize=64)
def _machine_identity(name: str) -> str:
    return key(_machine(name).model_dump(mode="json"))


@lru_cache(maxsize=64)
def _model_identity(name: str) -> str:
    return key(_model(name).model_dump(mode="json"))


def name_of(named: str | Machine | Model | None) -> str:
    """The name or path by which a machine or a model was given, or its own name; empty where there is none."""
    return "" if named is None else named if isinstance(named, str) else named.name


def _simulate(trial: Trial) -> dict[str, Any]:
    from ...simulate import simulate_setting

    model = model_of(trial)
    setting = replace(Setting.of(machine_of(trial), model, trial.plan), kept=KEPT)
    summary = simulate_setting(setting, allow_overcommit=trial.overcommit, traced=False, **trial.own).summary()
    return {"experts": model.experts, **_of_step(summary)}


def _campaign(trial: Trial) -> dict[str, Any]:
    from ...campaign.campaign import campaign

    ways = {"allow_overcommit": trial.overcommit, **trial.own, **trial.plan}
    found = campaign(machine_of(trial), model_of(trial), **ways)
    return {**found.summary(), "step": _of_step(found.run.summary())}


def _of_step(summary: Table) -> dict[str, Any]:
    """What a step's summary says of its inputs, and to what most of it goes (``limit``)."""
    told = {name: value for name, value in summary.items() if name not in VOLATILE}
    return {**told, "limit": max(summary["breakdown"], key=lambda name: summary["breakdown"][name])}


def _memory(trial: Trial) -> dict[str, Any]:
    from ....workloads.memory import account, sample_loads

    setting = Setting.of(machine_of(trial), model_of(trial), trial.plan)
    found = account(setting, sample_loads(setting)).worst
    return {"fits": found.fits, "stage": found.stage, **found.table(), "host": found.host, **found.printed()}


def _collective(trial: Trial) -> dict[str, Any]:
    from ..collective import collective
    from ..collective_sweep import compare

    ways = dict(trial.own)
    operation, algorithm, ranks = ways.pop("op", None), ways.pop("algorithm", None), ways.pop("ranks", None)
    try:
        nbytes = read_bytes(str(ways.pop("bytes", "1 MiB")))
    except ValueError as reason:
        raise InputError(f"collective.bytes: {reason}") from None
    for name, value in (("op", operation), ("ranks", ranks)):
        if value is None:
            raise InputError(f"collective.{name}: is missing")
    machine = machine_of(trial)
    if algorithm:
        return collective(machine, operation, algorithm, ranks, nbytes, **ways).plain()
    return compare(machine, operation, ranks, nbytes, **ways).results[0].plain()


_FIGURES = {"simulate": _simulate, "campaign": _campaign, "collective": _collective, "memory": _memory}


def flat(table: Table, before: str = "") -> Iterator[tuple[str, Any]]:
    """Figures of nested tables by dotted key: numbers and texts; meshes and warnings as one text, other lists not at all."""
    for name, value in table.items():
        if name == "mesh" and isinstance(value, Mapping):
            yield f"{before}{name}", mesh_text(value)
        elif isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        elif name == "warnings":
            yield f"{before}{name}", "; ".join(value)
        elif value is None or isinstance(value, bool | int | float | str):
            yield f"{before}{name}", value


def own_keys(command: str) -> tuple[str, ...]:
    """The options of a command that no plan has."""
    if command == "campaign":
        return tuple(CampaignPlan.options())
    if command == "collective":
        from ..collective import Collective

        found = inspect.signature(Collective).parameters.values()
        return ("op", "algorithm", "ranks", "bytes", *(each.name for each in found if each.kind is each.KEYWORD_ONLY))
    return ("bottleneck",) if command == "simulate" else ()


def read_value(part: str, name: str, value: Any, where: str) -> Any:
    """A value of an option of plans or campaigns in its type; raises :class:`InputError` that names ``where`` it stands."""
    options: dict[str, Mapping[str, Option]] = {"plan": Plan.options(), "campaign": CampaignPlan.options()}
    if part not in options:
        return value
    found, wrong = read_options(options[part], {name: value}, lambda _: where)
    if wrong:
        raise InputError(wrong)
    if part == "plan":
        require_known(where, name, found[name])
    return found[name]
