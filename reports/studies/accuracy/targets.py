"""What constants may be fitted, and to which rows: those of an accelerator, of a machine's fabric, or of a library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ....hardware.errors import InputError, suggestion
from ....hardware.machine import Machine, list_machines
from .cases import case_of, setting_of
from .libraries import Library, libraries, library_of
from .rows import LeftOut, PublishedRow, read_rows
from .shapes import LENT
from .systems import entry_of, system_of

Groups = tuple[tuple[str, ...], ...]

ACCELERATOR: Groups = (
    ("calibration.gemm_efficiency",),
    ("core_group.dma_read", "core_group.dma_write"),
    ("core_group.tiles.precisions.fp8",),
)
"""What is fitted of an accelerator; keys that stand together have one value. Only what some row depends on is.

Starts of operators, the cache and fused attention are not: rows of whole steps hardly tell them apart from these.
"""

FABRIC: Groups = (("calibration.network_efficiency",), ("node.ring_bandwidth",))
"""What is fitted of a machine's fabric: the share of the wire rate across nodes, and the rate of a port inside them."""

LIBRARY: Groups = (("calibration.shard_overhead",),)
"""What is fitted of a library, where its entry sets it."""

FITTED_OF_LIBRARIES = {group[0] for group in LIBRARY}

STEPS = ("iteration_time", "throughput", "throughput_per_accel", "steps_per_second", "MFU")
"""Metrics that tell of a whole training step."""

BUS_BANDWIDTH = re.compile("_busbw")
"""Metrics that tell of a collective."""

MEASURED = re.compile(r"bus bandwidth|all-reduce")
"""Words in the source of a rate that was read off a collective."""

OTHERWISE = {"sunway-oceanlight": r"^bagualu_(1\.93T|174T)$", "fugaku": r"^fugaku_"}
"""Rows that constants were set by in other ways: ``athanor fit bagualu``, and by hand."""

LEAST_ROWS = 4


@dataclass(frozen=True)
class Target:
    """What is fitted: the values of groups of ``keys``, from rows on these machines (and of this library, if there is one)."""

    kind: str
    name: str
    machines: tuple[Machine, ...]
    keys: Groups
    library: Library | None = None

    @property
    def start(self) -> dict[tuple[str, ...], float]:
        """Values in use; keys that the machines do not have are left out."""
        if self.library:
            return {group: self.library.set[group[0]] for group in self.keys if group[0] in self.library.set}
        table = self.machines[0].model_dump(mode="json")
        found: dict[tuple[str, ...], float] = {}
        for group in self.keys:
            here: Any = table
            for part in group[0].split("."):
                here = here.get(part) if isinstance(here, dict) else None
            if here is not None:
                found[group] = float(here)
        return found

    def takes(self, row: PublishedRow) -> bool:
        """Whether a row is about it; raises :class:`LeftOut` where it is not predicted.

        Of accelerators and libraries the model's shape has to be known; what a fabric carries follows from its parameters.
        """
        if system_of(entry_of(row)).machine.name not in {machine.name for machine in self.machines}:
            return False
        if self.library and library_of(row) != self.library:
            return False
        if self.kind == "fabric" and BUS_BANDWIDTH.search(row.text("measured_metric")):
            return True
        if row.text("measured_metric") not in STEPS:
            return False
        case = case_of(row)
        setting_of(case)
        return self.kind == "fabric" or not any(each.startswith(LENT) for each in case.assumed)


def target_of(kind: str, name: str) -> Target:
    """An accelerator, the machine whose fabric is meant, or a library; raises :class:`InputError` with those that there are."""
    machines = tuple(list_machines())
    if kind == "accelerator":
        chosen = _one(kind, name, {each.core_group.accelerator or "" for each in machines} - {""}, "in the catalogue")
        return Target(kind, chosen, tuple(m for m in machines if m.core_group.accelerator == chosen), ACCELERATOR)
    if kind == "library":
        fitted = {each.name: each for each in libraries() if set(each.set) & FITTED_OF_LIBRARIES}
        chosen = _one(kind, name, set(fitted), "with a constant to fit")
        return Target(kind, chosen, machines, LIBRARY, fitted[chosen])
    chosen = _one(kind, name, {each.name for each in machines}, "in the catalogue")
    return Target(kind, chosen, tuple(each for each in machines if each.name == chosen), FABRIC)


def _one(kind: str, name: str, known: set[str], where: str) -> str:
    same = {each.lower(): each for each in known}
    if name.lower() not in same:
        what = "machine" if kind == "fabric" else kind
        raise InputError(f"fit {kind} {name}: no such {what} {where}{suggestion(name, sorted(known))}")
    return same[name.lower()]


def rows_of(target: Target, rows: Sequence[PublishedRow]) -> list[PublishedRow]:
    """Rows about training steps (of fabrics, about collectives too) that tell of the target, in the order of sources and names.

    Raises :class:`InputError` where they are too few to be halved.
    """
    found = []
    for row in rows:
        try:
            if target.takes(row):
                found.append(row)
        except LeftOut:
            continue
    if len(found) < LEAST_ROWS:
        raise InputError(f"fit {target.kind} {target.name}: {len(found)} rows about it; {LEAST_ROWS} are needed")
    return sorted(found, key=lambda row: (row.source, row.id))


def halves(rows: Sequence[PublishedRow]) -> tuple[Sequence[PublishedRow], Sequence[PublishedRow]]:
    """The rows that are fitted to, every second one, and the others."""
    return rows[::2], rows[1::2]


def looked_at(row: PublishedRow, machine: Machine) -> bool:
    """Whether constants that a row's prediction on this machine uses were fitted to the row: then it is no prediction.

    Collectives count as looked at where the machine's rates were read off measured ones.
    """
    kinds = [("fabric", machine.name, FABRIC)]
    if machine.core_group.accelerator:
        kinds.append(("accelerator", machine.core_group.accelerator, ACCELERATOR))
    for kind, name, keys in kinds:
        told = [machine.sources.get(key, "") for group in keys for key in group]
        if any(text.startswith(f"fitted: athanor fit {kind}") for text in told) and row.id in fitted_to(kind, name):
            return True
    if BUS_BANDWIDTH.search(row.text("measured_metric")):
        rates = [machine.sources.get(key, "") for key in ("node.ring_bandwidth", "calibration.network_efficiency")]
        return any(MEASURED.search(text) for text in rates)
    if (mine := OTHERWISE.get(machine.name)) and re.search(mine, row.id):
        return True
    library = library_of(row)
    return bool(set(library.set) & FITTED_OF_LIBRARIES) and row.id in fitted_to("library", library.name)


@lru_cache
def fitted_to(kind: str, name: str) -> frozenset[str]:
    """Names of the published rows that constants are fitted to; none where these are too few. Libraries' are fitted to all."""
    try:
        rows = rows_of(target_of(kind, name), read_rows())
        return frozenset(row.id for row in (rows if kind == "library" else halves(rows)[0]))
    except InputError:
        return frozenset()
