"""Memory that rows tell of: readings of a card, peaks of an allocator, and accounts by formula; and what is predicted of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ....workloads.memory import Account, account, sample_loads
from .cases import Case, setting_of
from .rows import LeftOut, PublishedRow, read_rows

BESIDE = ":memory"
"""Ends the name of the row that a row about something else has for the memory in its note."""

READING = "mem_total"

BYTES = {"GiB": 2.0**30, "GB": 1e9, "MiB": 2.0**20, "MB": 1e6}

STATED = re.compile(r"\bmem(?:ory)? (?:of )?(\d+(?:\.\d+)?) ?(GiB|GB|MiB|MB)\b|(?:^|; )(\d+) (MiB)(?:;|$)")
"""``mem 29GB``, ``peak mem 82.4 GiB``, or so many MiB by themselves; rates and sizes of messages stand otherwise."""

ANOTHER = re.compile(r"(\w+) same config [^;]*; \d+ MiB")
"""Another program's throughput and, by the same table of its source, memory."""

PEAK = re.compile(r"\bpeak mem")
"""What an allocator held at most, to which driver and libraries come on the card."""

FORMULA = re.compile(r"\banalytical\b")

LAYERS_ALONE = re.compile(r"Korthikanti")
"""Sources whose accounts have layers alone, without embedding, and 18 bytes a parameter: gradients in single precision. All four
figures of Korthikanti et al. 2022 are 18 bytes of the layers' parameters to 0.2 %."""

FITTED_LOG = re.compile(r"bigscience tr11")
"""The log whose readings the idle share of a framework's pool was fitted to."""

COMPILED = re.compile(r"\balpa\b|\bjax\b|\bxla\b|gshard", re.IGNORECASE)
"""Programs that are laid out in memory as a whole before they run, without a pool and its idle blocks."""


def with_memory(rows: Iterable[PublishedRow]) -> Iterator[PublishedRow]:
    """Rows, and after each that tells of memory beside what it measured a row of its own for that."""
    for row in rows:
        yield row
        stated = None if is_memory(row) else STATED.search(row.text("note"))
        if stated:
            value, unit = (group for group in stated.groups() if group)
            told = {"measured_metric": READING, "measured_value": value, "unit": f"{unit}/GPU"}
            yield PublishedRow({**row.fields, **told, "id": f"{row.id}{BESIDE}"})


def is_memory(row: PublishedRow) -> bool:
    """Whether a row measures memory."""
    return row.text("measured_metric").startswith("mem")


def is_beside(row: PublishedRow) -> bool:
    """Whether a row was made of another's note."""
    return row.id.endswith(BESIDE)


def is_formula(row: PublishedRow) -> bool:
    """Whether a source computed what it tells of memory."""
    return is_memory(row) and bool(FORMULA.search(row.text("note")))


def unit_of(row: PublishedRow) -> float:
    """Bytes of a row's unit, such as ``GiB/GPU``."""
    found = BYTES.get(row.text("unit").split("/")[0].split(" ")[0])
    if found is None:
        raise LeftOut(f"unit {row.text('unit')}: neither GiB, GB, MiB nor MB")
    return found


@lru_cache
def pool_rows() -> frozenset[str]:
    """Names of the published readings that ``core_group.framework.fragments`` was fitted to: every second one of BLOOM's log."""
    readings = [row.id for row in with_memory(read_rows()) if is_beside(row) and FITTED_LOG.search(row.source)]
    return frozenset(readings[::2])


def memory_of(row: PublishedRow, case: Case) -> tuple[float, tuple[str, ...]]:
    """What a rank needs, in the unit of the row, and what was assumed; raises :class:`LeftOut` where that is not known."""
    unit = unit_of(row)
    if other := ANOTHER.search(row.text("note")):
        raise LeftOut(f"the memory is that of {other.group(1)}, which ran the same plan")
    if FORMULA.search(row.text("note")):
        value, assumed = _by_formula(row, case)
    else:
        value, assumed = _on_the_card(row, case)
    return value / unit, (*case.assumed, *assumed)


def _by_formula(row: PublishedRow, case: Case) -> tuple[float, tuple[str, ...]]:
    """Formulas of the first stage, without what a framework takes."""
    alone, metric = bool(LAYERS_ALONE.search(row.source)), row.text("measured_metric")
    if alone and case.options.get("precision") == "O2":
        case = replace(case, options={**case.options, "precision": "bf16"})
    found = _account(case)
    state = ("parameters", "gradients", "optimizer")
    parts = {
        "mem_params_optimizer": _sum(found, state, ("embedding",) if alone else ()),
        "mem_activations": _kept(found),
        "mem_total": _sum(found, state, ()) + _kept(found),
    }
    if metric not in parts:
        raise LeftOut(f"no such part of memory: {metric}")
    return parts[metric], ("layers without embedding, gradients in single precision",) if alone else ()


def _on_the_card(row: PublishedRow, case: Case) -> tuple[float, tuple[str, ...]]:
    """The fullest rank of the fullest stage; readings of a whole card only where the machine says what its system keeps."""
    peak = bool(PEAK.search(row.text("note")))
    if not peak and case.machine.core_group.reserved_memory is None:
        raise LeftOut(
            f"the reading has what the system keeps, which {case.machine.name} does not say (core_group.reserved_memory)"
        )
    compiled = bool(COMPILED.search(row.source))
    if compiled and case.machine.core_group.framework:
        case = case.on(case.machine.changed({"core_group.framework": None}))
    found, metric = _account(case), row.text("measured_metric")
    need = found.worst
    parts = {
        "mem_params_optimizer": need.parameters + need.gradients + need.optimizer,
        "mem_activations": need.activations,
        "mem_total": need.total,
    }
    if metric not in parts:
        raise LeftOut(f"no such part of memory: {metric}")
    if metric == READING and peak:
        libraries = [line.nbytes[need.stage] for line in found.lines if line.keeper == "library"]
        return need.total - float(np.sum(libraries)), ("without driver and libraries",)
    return parts[metric], ("compiled as a whole",) if compiled else ()


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
