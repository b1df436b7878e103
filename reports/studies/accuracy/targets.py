"""What constants may be fitted, and to which rows: those of an accelerator, of a machine's fabric, or of a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....hardware.errors import InputError, suggestion
from ....hardware.machine import Machine, list_machines
from ...published.run import COLLECTIVE, PublishedRun
from .cases import LeftOut, case_of, setting_of
from .libraries import Library, libraries

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

LEAST_RUNS = 4


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

    def takes(self, run: PublishedRun) -> bool:
        """Whether a run is about it; raises :class:`LeftOut` where it is not predicted.

        Of accelerators and libraries the model's shape has to be known; what a fabric carries follows from its parameters.
        """
        if run.left_out or run.machine is None:
            return False
        if self.kind == "accelerator" and run.machine_used.core_group.accelerator != self.name:
            return False
        if self.kind == "fabric" and run.machine != self.name:
            return False
        if self.library and run.library != self.library.name:
            return False
        if self.kind == "fabric" and run.metric == COLLECTIVE:
            return True
        if run.metric not in STEPS or (not run.shape_published and self.kind != "fabric"):
            return False
        setting_of(case_of(run))
        return True


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


def runs_of(target: Target, runs: Sequence[PublishedRun]) -> list[PublishedRun]:
    """Runs of training steps (of fabrics, of collectives too) that tell of the target, in the order of publications and names.

    Raises :class:`InputError` where they are too few.
    """
    found = []
    for run in runs:
        try:
            if target.takes(run):
                found.append(run)
        except (LeftOut, InputError):
            continue
    if len(found) < LEAST_RUNS:
        raise InputError(f"fit {target.kind} {target.name}: {len(found)} runs about it; {LEAST_RUNS} are needed")
    return sorted(found, key=lambda run: (run.publication, run.source, run.id))


def split(runs: Sequence[PublishedRun]) -> tuple[list[PublishedRun], list[PublishedRun]]:
    """The runs that are fitted to, and those that are held out, as their records say."""
    return [run for run in runs if run.fitted], [run for run in runs if not run.fitted]
