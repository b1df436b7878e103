"""How two sides become rows, predicted beside measured, and what the errors of several rows are together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....workloads.results.trace import TraceRow
from ....workloads.schedule.operation import Role
from .sides import Match, Side, What

Array = NDArray[np.float64]

ROUTED = (Role.DISPATCH, Role.COMBINE)
"""Exchanges whose algorithm the plan chooses."""


@dataclass(frozen=True)
class ComparisonRow:
    """One quantity on both sides, in the unit of its table; ``variation`` is that of the measured repeats."""

    name: str
    predicted: float
    measured: float
    variation: float | None = None

    @property
    def relative_error(self) -> float | None:
        """(predicted - measured) / measured; None where nothing was measured, or less than clocks can tell."""
        return (self.predicted - self.measured) / self.measured if self.measured > 0 else None

    def plain(self, unit: str) -> dict[str, Any]:
        """As plain data, the unit in the keys."""
        return {
            "name": self.name,
            f"predicted_{unit}": self.predicted,
            f"measured_{unit}": self.measured,
            "relative_error": self.relative_error,
            "measured_variation": self.variation,
        }


@dataclass(frozen=True)
class OperationRow:
    """Seconds and bytes of an operation on one class of ranks, ``count`` operations of the schedule summed up."""

    name: str
    match: Match
    what: What
    count: int
    seconds: ComparisonRow
    nbytes: ComparisonRow


@dataclass(frozen=True)
class Errors:
    """Relative errors of several rows together: mean with sign, mean of magnitudes, and the largest."""

    count: int
    bias: float | None
    mape: float | None
    worst: tuple[str, float] | None

    @classmethod
    def of(cls, rows: Iterable[tuple[str, ComparisonRow]], weighted: bool = False) -> Errors:
        """Errors of named rows, each counting the same or by what was measured; rows without an error do not count.

        By weight, the worst is the row that is most seconds off.
        """
        known = [(name, row.relative_error, row.measured) for name, row in rows if row.relative_error is not None]
        if not known:
            return cls(0, None, None, None)
        errors = np.array([error for _, error, _ in known], dtype=float)
        weights = np.array([measured for _, _, measured in known]) if weighted else np.ones(len(known))
        worst = int(np.argmax(np.abs(errors) * weights))
        return cls(
            len(known),
            float(np.average(errors, weights=weights)),
            float(np.average(np.abs(errors), weights=weights)),
            (known[worst][0], float(errors[worst])),
        )

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        worst = {"name": self.worst[0], "relative_error": self.worst[1]} if self.worst else None
        return {"count": self.count, "bias": self.bias, "mape": self.mape, "worst": worst}


@dataclass(frozen=True)
class Seen:
    """What both sides saw of one match: seconds and bytes of each operation, ``[steps]``, predicted and measured."""

    match: Match
    seconds: tuple[dict[str, Array], dict[str, Array]]
    nbytes: tuple[dict[str, Array], dict[str, Array]]

    @classmethod
    def of(cls, match: Match, predicted: Side, measured: Side) -> Seen:
        """The rows of the matched classes, as means over those of the run."""
        ours, theirs = (match.predicted,), match.measured
        return cls(
            match,
            (predicted.per_step(ours, _seconds), measured.per_step(theirs, _seconds)),
            (predicted.per_step(ours, _nbytes), measured.per_step(theirs, _nbytes)),
        )

    def rows(self, what: Mapping[str, What], summed: bool) -> list[OperationRow]:
        """A row for each operation, or, ``summed``, for all that share a short name."""
        members: dict[str, list[str]] = {}
        for name in self.seconds[0]:
            members.setdefault(what[name].short if summed else name, []).append(name)
        return [
            OperationRow(name, self.match, what[each[0]], len(each), *self._both(name, each))
            for name, each in members.items()
        ]

    def _both(self, name: str, members: Sequence[str]) -> tuple[ComparisonRow, ComparisonRow]:
        """Seconds and bytes of several operations together."""
        seconds, nbytes = (
            [sum((side[each] for each in members), np.zeros(1)) for side in sides]
            for sides in (self.seconds, self.nbytes)
        )
        return row_of(name, *seconds), row_of(name, *nbytes)


def _seconds(row: TraceRow) -> float:
    return row.end - row.start


def _nbytes(row: TraceRow) -> float:
    return row.nbytes


def row_of(name: str, predicted: Array, measured: Array) -> ComparisonRow:
    """A row of values ``[steps]`` on both sides."""
    return ComparisonRow(name, float(predicted.mean()), float(measured.mean()), _variation(measured))


def _variation(values: Array) -> float | None:
    """Standard deviation (of a sample) over the mean; None for a single value, and where the mean is nothing."""
    return float(values.std(ddof=1) / values.mean()) if len(values) > 1 and values.mean() > 0 else None


def exposed_rows(
    ours: Mapping[str, float], theirs: Mapping[str, float], each: Mapping[str, list[float]]
) -> list[ComparisonRow]:
    """Rows of a summary's seconds, without those that are nothing on both sides."""
    return [
        ComparisonRow(name, ours.get(name, 0.0), theirs.get(name, 0.0), _variation(np.array(each.get(name, []))))
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) or theirs.get(name)
    ]


def grouped_rows(
    seen: Sequence[Seen], what: Mapping[str, What], key: Callable[[str, What], str]
) -> list[ComparisonRow]:
    """Seconds of all operations with the same key, means over the matched ranks; those whose key is empty do not count."""
    sums: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
    for each in seen:
        for found, side in zip(sums, each.seconds, strict=True):
            for name, seconds in side.items():
                if group := key(name, what[name]):
                    found[group] = found.get(group, np.zeros(1)) + seconds / len(seen)
    return [
        row_of(group, seconds, sums[1][group])
        for group, seconds in sums[0].items()
        if seconds.any() or sums[1][group].any()
    ]


def kind(name: str, what: What) -> str:
    """The kind of an operation; of an exchange its collective, with the algorithm where the plan chooses it."""
    if not what.collective:
        return what.kind
    return f"{what.collective} ({what.algorithm})" if what.role in ROUTED else what.collective
