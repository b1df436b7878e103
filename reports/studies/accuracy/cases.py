"""What to simulate for a published run: machine, model and plan, and what had to be assumed because it was not published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ....hardware.errors import InputError
from ....hardware.machine import Machine
from ....workloads.memory import account, sample_loads
from ....workloads.mesh.mesh import Mesh
from ....workloads.model.model import Model
from ....workloads.plan.setting import Setting
from ...published.run import LAYER, PublishedRun
from .libraries import Library, library_of

MICRO_BATCHES = (1, 2, 4)
"""Sequences of a micro-batch that are tried where it was not published: users take the fastest that fits."""

SMALLEST = "micro-batches of one sequence"

BEYOND = 4.0
"""Times its memory that a rank may need by our account before we say that the plan is not the one that ran: accounts of what
frameworks keep are off by less than half, and a plan read wrongly by orders of magnitude."""


class LeftOut(Exception):
    """A run that is not predicted; the message is the reason."""


@dataclass(frozen=True)
class Case:
    """A training step to simulate; ``assumed`` says what was not published."""

    machine: Machine
    model: Model
    options: dict[str, Any]
    assumed: tuple[str, ...] = ()
    library: Library | None = None

    def on(self, machine: Machine) -> Case:
        """The same on another machine."""
        return replace(self, machine=machine)


def cases_of(run: PublishedRun) -> list[Case]:
    """The steps that a run may stand for: one, or one for each micro-batch of a few where that was not published.

    Raises :class:`LeftOut` as :func:`case_of` does.
    """
    first = case_of(run)
    if SMALLEST not in first.assumed:
        return [first]
    found = [first]
    for micro in MICRO_BATCHES[1:]:
        try:
            more = case_of(run, micro)
            setting_of(more)
        except LeftOut:  # it does not divide what a replica has
            continue
        told = f"micro-batches of {micro} sequences, the fastest that fit"
        found.append(replace(more, assumed=(*more.assumed, told)))
    return found


def case_of(run: PublishedRun, micro_batch: int | None = None) -> Case:
    """The step of a run; raises :class:`LeftOut` with what is missing or contradicts."""
    if run.left_out:
        raise LeftOut(run.left_out)
    machine, model, assumed = run.machine_used, run.model_used, list(run.assumed)
    if run.catalogue_plan:
        _check_ranks(run, {**model.plan, **run.plan}["mesh"])
        return Case(machine, model, dict(run.plan), tuple(assumed))
    try:
        library = library_of(run)
    except InputError as wrong:
        raise LeftOut(str(wrong)) from None
    mesh = run.plan["mesh"]
    _check_ranks(run, mesh)
    options: dict[str, Any] = {
        "placement": "megatron",
        "balancer": "even" if model.experts else "none",
        **(library.plan_on(mesh) if library else {}),
        **run.plan,
    }
    options |= _batch(run, options, mesh, assumed, micro_batch)
    if library:
        assumed.append(library.assumed)
        machine = library.on(machine)
    elif "attention" not in run.plan or "overlap" not in run.plan:
        assumed.append("no library named: what the plan does not say is unfused and not overlapped")
    if options.get("tensor_overlap"):
        assumed.append("exchanges over tp beside products")
    bare = model.model_copy(update={"plan": {}}) if model.plan else model
    return Case(machine, bare, options, tuple(assumed), library)


def setting_of(case: Case) -> Setting:
    """The setting of a case; raises :class:`LeftOut` where the simulator has no such plan, with its reason."""
    try:
        return Setting.of(case.machine, case.model, case.options)
    except InputError as wrong:
        raise LeftOut(str(wrong)) from None


def require_fit(setting: Setting) -> None:
    """Raise :class:`LeftOut` where a plan cannot have run as it is written: its ranks hold far more than their memory."""
    need = max(float(part.total) for part in account(setting, sample_loads(setting)).by_stage)
    memory = setting.machine.processor(setting.ranks_per_node).memory
    if need > BEYOND * memory:
        raise LeftOut(
            f"a rank would need {need / 1e9:,.0f} GB of its {memory / 1e9:,.0f} GB: the plan that ran is another one"
        )


def _check_ranks(run: PublishedRun, mesh: dict[str, int]) -> None:
    ranks = prod(mesh.values())
    if run.accelerators not in (None, ranks):
        degrees = " x ".join(f"{axis}={size}" for axis, size in mesh.items())
        raise LeftOut(f"{degrees} is {ranks:,}, not the {run.accelerators:,} of accelerators")


def _batch(
    run: PublishedRun, options: dict[str, Any], mesh: dict[str, int], assumed: list[str], micro_batch: int | None
) -> dict[str, Any]:
    """Sequences of a step, and those of a replica's micro-batch: shared evenly, and one where they were not published."""
    found: dict[str, Any] = {}
    replicas = Mesh.of(mesh).replicas
    micro = options.get("micro_batch") or micro_batch
    batch = options.get("global_batch")
    if batch is None and options.get("tokens_per_rank") is None:
        if run.metric != LAYER or not micro:
            raise LeftOut("plan.global_batch was not published")
        batch = micro * replicas
    if batch is not None:
        batch, spare = batch // replicas * replicas, batch % replicas
        if not batch:
            raise LeftOut(f"plan.global_batch {options['global_batch']} is less than its {replicas} replicas")
        if spare:
            assumed.append(f"{batch:,} of {batch + spare:,} sequences, which {replicas} replicas share evenly")
        found["global_batch"] = batch
    if micro is None:
        micro = MICRO_BATCHES[0]
        assumed.append(SMALLEST)
    found["micro_batch"] = micro
    return found
