"""Memory that runs tell of: readings of a card, peaks of an allocator, and accounts by formula; and what is predicted of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ....workloads.memory import Account, Memory, account, sample_loads
from ...published.run import Convention, PublishedRun
from .cases import Case, LeftOut, setting_of

BESIDE = ":memory"
"""Ends the name under which the memory of a run stands that is about something else."""

READING = "mem_total"

BYTES = {"GiB": 2.0**30, "GB": 1e9, "MiB": 2.0**20, "MB": 1e6}


def with_memory(runs: Iterable[PublishedRun]) -> Iterator[PublishedRun]:
    """Runs, and after each that tells of memory beside what it measured one for that."""
    for run in runs:
        yield run
        told = run.memory
        if told and not run.beside:
            yield run.model_copy(
                update={
                    "id": f"{run.id}{BESIDE}",
                    "metric": READING,
                    "value": told.value,
                    "unit": told.unit,
                    "convention": Convention(reading=told.reading),
                    "left_out": told.left_out or run.left_out,
                    "fitted": told.fitted,
                    "memory": None,
                    "beside": True,
                }
            )


def memory_of(run: PublishedRun, case: Case) -> tuple[float, tuple[str, ...]]:
    """What a rank needs, in the unit of the run, and what was assumed; raises :class:`LeftOut` where that is not known."""
    value, assumed = _by_formula(run, case) if run.is_formula else _on_the_card(run, case)
    return value / BYTES[run.unit], (*case.assumed, *assumed)


def _by_formula(run: PublishedRun, case: Case) -> tuple[float, tuple[str, ...]]:
    """Formulas of the first stage, without what a framework takes."""
    found, without = _account(case), () if run.convention.embedding else ("embedding",)
    state = ("parameters", "gradients", "optimizer")
    parts = {
        "mem_params_optimizer": _sum(found, state, without),
        "mem_activations": _kept(found),
        "mem_total": _sum(found, state, without) + _kept(found),
    }
    return parts[run.metric], ()


def _on_the_card(run: PublishedRun, case: Case) -> tuple[float, tuple[str, ...]]:
    """The fullest rank of the fullest stage; what the system shows only where the machine says what that keeps."""
    reading = run.convention.reading
    if reading == "system" and case.machine.core_group.reserved_memory is None:
        raise LeftOut(
            f"the reading has what the system keeps, which {case.machine.name} does not say (core_group.reserved_memory)"
        )
    compiled = bool(case.library and case.library.compiled)
    if compiled and case.machine.core_group.framework:
        case = case.on(case.machine.changed({"core_group.framework": None}))
    stages = _account(case).by_stage
    compiled_too = ("compiled as a whole",) if compiled else ()
    parts: dict[str, Callable[[Memory], float]] = {
        "mem_params_optimizer": lambda need: need.parameters + need.gradients + need.optimizer,
        "mem_activations": lambda need: need.activations,
        "mem_total": lambda need: {"system": need.total, "reserved": need.reserved}.get(reading, need.allocated),
    }
    beside = () if reading == "system" or run.metric != READING else ("without driver and libraries",)
    return max(map(parts[run.metric], stages)), (*compiled_too, *beside)


def _account(case: Case) -> Account:
    setting = setting_of(case)
    return account(setting, sample_loads(setting))


def _kept(found: Account) -> float:
    """What the first stage's layers keep between the passes."""
    return float(
        sum(line.nbytes[0] for line in found.lines if line.part == "activations" and line.kept and not line.host)
    )


def _sum(found: Account, parts: tuple[str, ...], without: tuple[str, ...]) -> float:
    """Some parts of the first stage, without some of the model's."""
    lines = [line for line in found.lines if line.part in parts and line.name not in without and not line.host]
    return float(sum(line.nbytes[0] for line in lines))
