"""How good a calibration is: every measured collective, simulated on the machine that was made of it and on the nominal one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...hardware.errors import DoesNotFit
from ...hardware.machine import Machine
from ...hardware.units import binary
from ...mpi_runtime.calibration.calibrate import CalibrationOutcome
from ...mpi_runtime.calibration.findings import CalibrationFindings, Findings, FittedNumber
from ...mpi_runtime.calibration.machine import shown
from ...sim.studies.collective import Collective

BANDS = (8 << 10, 128 << 10)
"""Bytes of payloads at which errors are told apart."""

FORMAT = "athanor-calibration/1"


@dataclass(frozen=True)
class CollectiveCheck:
    """A collective of one size: seconds measured, by its own fit, and simulated on the calibrated and on the nominal machine.

    ``bytes`` is what the collective's size counts, ``payload`` the bytes of a rank's whole vector, also of an all-to-all.
    """

    name: str
    bytes: int
    payload: int
    held_out: bool
    measured: float
    fitted: float
    calibrated: float
    nominal: float | None

    def error(self, side: str) -> float | None:
        """The relative error of ``fitted``, ``calibrated`` or ``nominal``, positive where it is too long."""
        seconds = getattr(self, side)
        return None if seconds is None else float(seconds / self.measured - 1)


@dataclass(frozen=True)
class CollectiveErrors:
    """Relative errors of many points: the signed median, the median and the worst of their sizes, and where that is."""

    points: int
    signed: float
    median: float
    worst: float
    where: str

    @classmethod
    def of(cls, checks: Iterable[CollectiveCheck], side: str) -> CollectiveErrors | None:
        """The errors of one side; None where no point has it."""
        pairs = [(error, check) for check in checks if (error := check.error(side)) is not None]
        if not pairs:
            return None
        found = np.array([error for error, _ in pairs])
        _, last = max(pairs, key=lambda pair: abs(pair[0]))
        worst = float(np.abs(found).max())
        where = f"{last.name}, {last.bytes} B"
        return cls(len(pairs), float(np.median(found)), float(np.median(np.abs(found))), worst, where)


@dataclass(frozen=True)
class Told:
    """An outcome and its checks: what is shown and written of a calibration."""

    outcome: CalibrationOutcome
    checks: list[CollectiveCheck]

    @classmethod
    def of(cls, outcome: CalibrationOutcome) -> Told:
        """Simulate every measured collective on the calibrated machine, and on the nominal one where one was given."""
        return cls(outcome, list(checked(outcome.findings, outcome.machine, outcome.task.nominal)))

    @property
    def findings(self) -> Findings:
        """What the samples say."""
        return self.outcome.findings

    @cached_property
    def held_out(self) -> CollectiveErrors | None:
        """Errors of the collectives' own fits on sizes that were held out of them."""
        return CollectiveErrors.of((check for check in self.checks if check.held_out), "fitted")

    def errors(self, side: str) -> CollectiveErrors | None:
        """Errors of one side on all points."""
        return CollectiveErrors.of(self.checks, side)

    @cached_property
    def bands(self) -> list[tuple[str, list[CollectiveCheck]]]:
        """Checks by the size of their payloads: what overheads decide, what links decide, and what lies between."""
        ends = [0, *BANDS, float("inf")]
        names = [f"below {binary(BANDS[0])}", f"to {binary(BANDS[1])}", f"from {binary(BANDS[1])} on"]
        return [
            (name, [check for check in self.checks if least <= check.payload < most])
            for name, least, most in zip(names, ends, ends[1:], strict=False)
        ]

    @property
    def numbers(self) -> Iterator[tuple[str, str, str, str, str]]:
        """(key, value, standard error, samples, rejected) of what was measured, as text."""
        for found in self.outcome.calibrated.found:
            value, error = shown(found.value, found.unit), shown(found.error, found.unit, 2)
            yield found.key, value, error, f"{found.samples:,}", f"{found.rejected:,}"

    @cached_property
    def levels(
        self,
    ) -> list[tuple[FittedNumber, CalibrationFindings | None, CalibrationFindings | None, CalibrationFindings | None]]:
        """Ping-pong by level: its curve, latency, that of the library alone, and rate."""
        findings = self.findings
        return [
            (
                each,
                findings.latency(level := str(each.detail["level"])),
                findings.latency(level, "library ping-pong"),
                findings.pair_rate(level),
            )
            for each in findings.pairs
        ]

    @cached_property
    def products(self) -> list[dict[str, Any]]:
        """Every product: its shape, measured and modelled seconds."""
        found, fitted = self.findings.products, self.outcome.calibrated.products
        if found is None or fitted is None:
            return []
        return [
            {
                **each.point.detail,
                "seconds": each.median,
                "modelled_seconds": modelled,
                "relative_error": modelled / each.median - 1,
            }
            for each, modelled in zip(found.products, fitted.modelled, strict=True)
        ]

    def plain(self) -> dict[str, Any]:
        """As plain data, without samples."""
        outcome, machine = self.outcome, self.outcome.machine
        reduction = self.findings.per_unit("reduction", "reduction", "s", "a += b, seconds a byte")
        numbers = [found.plain() | {"source": machine.source(found.key)} for found in outcome.calibrated.found]
        return {
            "format": FORMAT,
            "machine": machine.name,
            "file": str(outcome.task.output),
            "like": outcome.task.like.name if outcome.task.like else None,
            **outcome.job,
            **outcome.about,
            "numbers": numbers,
            "reduction_seconds_per_byte": reduction.value if reduction else None,
            "messages": [_level(*each) for each in self.levels],
            "collectives": [each.plain() for each in self.findings.collectives],
            "products": self.products,
            "errors": {
                "held_out": _plain(self.held_out),
                "calibrated": _plain(self.errors("calibrated")),
                "nominal": _plain(self.errors("nominal")),
                "by_payload": {
                    name: {
                        side: _plain(CollectiveErrors.of(checks, side)) for side in ("fitted", "calibrated", "nominal")
                    }
                    for name, checks in self.bands
                },
            },
            "warnings": outcome.calibrated.warnings,
        }

    def whole(self) -> dict[str, Any]:
        """As plain data, with every sample and every simulated collective."""
        points = [each.plain() for each in self.findings.series]
        return {**self.plain(), "checks": [vars(check) for check in self.checks], "points": points}


def _plain(errors: CollectiveErrors | None) -> dict[str, Any] | None:
    return None if errors is None else vars(errors)


def _level(
    fitted: FittedNumber,
    latency: CalibrationFindings | None,
    library: CalibrationFindings | None,
    rate: CalibrationFindings | None,
) -> dict[str, Any]:
    return {
        **fitted.plain(),
        "latency_seconds": latency.value if latency else None,
        "library_seconds": library.value if library else None,
        "bytes_per_second": rate.value if rate else None,
    }


def checked(findings: Findings, machine: Machine, nominal: Machine | None) -> Iterator[CollectiveCheck]:
    """Every point of every collective, simulated."""
    asked: dict[tuple[str, str, int], Collective] = {}

    def simulator(side: str, on: Machine, fitted: FittedNumber) -> Callable[[float], float | None]:
        key = (side, fitted.detail["operation"], fitted.detail["ranks"])
        if key not in asked:
            width = findings.topology.ranks_per_host
            asked[key] = Collective(on, key[1], key[2], ranks_per_node=width)
        return lambda size: _simulated(asked[key], fitted.detail["algorithm"], size)

    repeated = _repeated(machine)
    for fitted in findings.collectives:
        ours = simulator("calibrated", repeated, fitted)
        theirs = simulator("nominal", nominal, fitted) if nominal else lambda size: None
        for each in fitted.series:
            seconds = ours(each.point.size)
            if seconds is not None:
                blocks = fitted.detail["ranks"] if fitted.detail["operation"] == "all-to-all" else 1
                yield CollectiveCheck(
                    fitted.name,
                    each.point.size,
                    blocks * each.point.size,
                    each.point.held_out,
                    each.median,
                    fitted.curve.at(each.point.size),
                    seconds,
                    theirs(each.point.size),
                )


def _repeated(machine: Machine) -> Machine:
    """A machine on which a collective takes what it takes in the middle of many: links are idle while messages start only."""
    calibration = machine.calibration
    if not calibration.link_burst:
        return machine
    starts = [each.start for each in calibration.messages] or [calibration.message_overhead]
    update = {"link_burst": min(calibration.link_burst, *starts)}
    return machine.model_copy(update={"calibration": calibration.model_copy(update=update)})


def _simulated(asked: Collective, algorithm: str, size: float) -> float | None:
    """Seconds of an algorithm; None where its messages are too many. A barrier carries nothing, whatever its size."""
    try:
        return asked.run(algorithm, max(size, 1.0)).seconds
    except DoesNotFit:
        return None
