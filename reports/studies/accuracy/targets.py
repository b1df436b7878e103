"""What constants may be fitted, within which bounds, and to which runs: an accelerator's, a fabric's, or a library's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....hardware.errors import InputError, suggestion
from ....hardware.machine import Machine, list_machines
from ...published.run import COLLECTIVE, PublishedRun
from .cases import LeftOut, case_of, require_fit, setting_of
from .libraries import Library, libraries


@dataclass(frozen=True)
class FittedConstant:
    """One constant: keys of the machine file that share a value, and between what it lies.

    ``rate``: times fall as it rises, in proportion to its inverse; others are times themselves.
    """

    keys: tuple[str, ...]
    low: float
    high: float
    rate: bool = True

    def inside(self, value: float) -> float:
        """The nearest value within the bounds."""
        return min(max(value, self.low), self.high)


ACCELERATOR = (
    FittedConstant(("calibration.gemm_efficiency",), 0.2, 1.0),
    FittedConstant(("core_group.dma_read", "core_group.dma_write"), 0.2, 1.0),
    FittedConstant(("core_group.tiles.precisions.fp8",), 0.3, 1.0),
)
"""What is fitted of an accelerator: shares of peak and of bandwidth. Sweeps of memory alone reach 80 % and more of its bandwidth:
less stands for traffic of frameworks that is not counted, such as casts and copies. Only what some run depends on is fitted.

Starts of operators, the cache and fused attention are not: runs of whole steps hardly tell them apart from these.
"""

FABRIC = (
    FittedConstant(("calibration.network_efficiency",), 0.1, 1.0),
    FittedConstant(("node.ring_bandwidth",), 1e9, 2e12),
)
"""What is fitted of a machine's fabric: the share of the wire rate across nodes, and the rate of a port inside them."""

LIBRARY = (FittedConstant(("calibration.shard_overhead",), 1e-7, 1e-3, rate=False),)
"""What is fitted of a library, where its entry sets it."""

REFITTED = (
    ("accelerator", "A100"),
    ("accelerator", "B200"),
    ("accelerator", "H100"),
    ("accelerator", "V100"),
    ("fabric", "dgx1-v100"),
    ("fabric", "dgx2-v100"),
    ("fabric", "jean-zay-a100"),
    ("library", "deepspeed-zero3"),
)
"""Fits whose values are in use, in the order in which they are made: each takes the values of those before it."""

STEPS = ("iteration_time", "throughput", "throughput_per_accel", "steps_per_second", "MFU", "HFU")
"""Metrics that tell of a whole training step."""

LEAST_RUNS = 4


@dataclass(frozen=True)
class Target:
    """What is fitted: parameters, from runs on these machines (and of this library, if there is one)."""

    kind: str
    name: str
    machines: tuple[Machine, ...]
    parameters: tuple[FittedConstant, ...]
    library: Library | None = None

    @property
    def start(self) -> dict[FittedConstant, float]:
        """Values in use; parameters that the machines do not have are left out."""
        if self.library:
            return {
                each: self.library.set[each.keys[0]] for each in self.parameters if each.keys[0] in self.library.set
            }
        table = self.machines[0].model_dump(mode="json")
        found: dict[FittedConstant, float] = {}
        for parameter in self.parameters:
            here: Any = table
            for part in parameter.keys[0].split("."):
                here = here.get(part) if isinstance(here, dict) else None
            if here is not None:
                found[parameter] = float(here)
        return found

    def touches(self, run: PublishedRun) -> bool:
        """Whether its constants are those of a run."""
        if run.left_out or run.machine is None:
            return False
        if self.kind == "accelerator":
            return run.machine_used.core_group.accelerator == self.name
        if self.kind == "fabric":
            return run.machine == self.name
        return self.library is not None and run.library == self.library.name

    def takes(self, run: PublishedRun) -> bool:
        """Whether a run tells of it; raises :class:`LeftOut` where it is not predicted.

        Of accelerators and libraries the model's shape has to be known; what a fabric carries follows from its parameters.
        """
        if not self.touches(run):
            return False
        if run.metric == COLLECTIVE:
            return self.kind == "fabric"
        if run.metric not in STEPS or not (run.shape_published or self.kind == "fabric"):
            return False
        require_fit(setting_of(case_of(run)))
        return True


def settings(values: Mapping[FittedConstant, float]) -> dict[str, float]:
    """Values by key of the machine file."""
    return {key: value for parameter, value in values.items() for key in parameter.keys}


def target_of(kind: str, name: str) -> Target:
    """An accelerator, the machine whose fabric is meant, or a library; raises :class:`InputError` with those that there are."""
    machines = tuple(list_machines())
    if kind == "accelerator":
        chosen = _one(kind, name, {each.core_group.accelerator or "" for each in machines} - {""}, "in the catalogue")
        return Target(kind, chosen, tuple(m for m in machines if m.core_group.accelerator == chosen), ACCELERATOR)
    if kind == "library":
        keys = {key for parameter in LIBRARY for key in parameter.keys}
        fitted = {each.name: each for each in libraries() if set(each.set) & keys}
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
