"""How far the model of an accelerator is from what was measured of it: by half, by operator, and in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...hardware.units import si
from ...mpi_runtime.accelerator.calibrate import AcceleratorOutcome
from ...mpi_runtime.accelerator.fit import UNFELT, HeldOutCheck, JudgedFit, counts, kind_of

FORMAT = "athanor-accelerator/1"

NAMES = {
    "read": "core_group.dma_read",
    "written": "core_group.dma_write",
    "overhead": "core_group.operator_overhead",
    "fill": "core_group.tiles.fill",
    "cache": "core_group.tiles.cache_bandwidth",
    "attention": "core_group.tiles.attention",
}
"""What the fit calls its constants, and where they stand in the machine file; efficiencies of precisions stand apart."""


def plain(outcome: AcceleratorOutcome) -> dict[str, Any]:
    """The calibration as plain data, without its points."""
    fit, measured, task = outcome.fit, outcome.measured, outcome.task
    return {
        "format": FORMAT,
        "machine": outcome.machine.name,
        "file": str(task.output),
        "like": task.like.name if task.like else None,
        **outcome.about,
        "quick": task.quick,
        "seconds": task.budget,
        "samples_file": str(task.samples_file),
        "points": len(measured.series),
        "points_kept_from_before": measured.resumed,
        "left_out": dict(measured.left_out),
        "tiles": [list(shape) for shape in fit.constants.shapes],
        "constants": {
            key: {"value": value, "relative_standard_error": _finite(fit.errors[name])}
            for name, key, value, _ in constants(outcome)
        },
        "errors": {half: _plain(judged(outcome.checks, half)) for half in HALVES},
        "errors_by_operator": [
            {
                "operator": kind,
                "precision": precision,
                **{half: _plain(judged(held, half, lambda _: True)) for half in HALVES},
            }
            for (kind, precision), held in by_operator(outcome.checks).items()
        ],
        "warnings": list(outcome.warnings),
    }


HALVES = ("fitted", "held_out")


def judged(
    checks: Iterable[HeldOutCheck], half: str, wanted: Callable[[HeldOutCheck], bool] | None = None
) -> JudgedFit | None:
    """Errors of one half of the points, of those that the model claims to know where nothing else is wanted."""
    told = wanted or (lambda check: counts(check.point))
    return JudgedFit.of(check for check in checks if check.point.held_out == (half == "held_out") and told(check))


def verdict(outcome: AcceleratorOutcome) -> str:
    """The errors in one line."""
    held, fitted = judged(outcome.checks, "held_out"), judged(outcome.checks, "fitted")
    if held is None or fitted is None:
        return "Nothing that was measured could be held out."
    return (
        f"Held out of the fit: {held.points} points, mean error {held.mape:.1%} ({held.by_time:.1%} weighted by their"
        f" seconds), median {held.median:.1%}, worst {_signed(held.worst)} ({held.where}); the {fitted.points} that were"
        f" fitted to: {fitted.mape:.1%}."
    )


def constants(outcome: AcceleratorOutcome) -> Iterator[tuple[str, str, float, str]]:
    """(name in the fit, key of the machine, value, value as text) of what was fitted."""
    fit, texts = outcome.fit, {key: text for key, text, _ in outcome.machine.numbers()}
    found, group = fit.constants, outcome.machine.core_group
    for name in fit.errors:
        kind = name.partition(".")[2]
        if kind:
            share = next(share for known, share in found.efficiency.items() if kind in (known, "all"))
            key = "calibration.gemm_efficiency" + (f" of {kind}" if kind != "all" else "")
            yield name, key, share, f"{share:.4g}"
        else:
            value = getattr(found, name)
            rate = si(value, "B/s") if name in ("read", "written") else ""
            shown = texts[NAMES[name]] + (f" of {si(group.memory_bandwidth, 'B/s')}, {rate}" if rate else "")
            yield name, NAMES[name], value, shown


def by_operator(checks: Iterable[HeldOutCheck]) -> dict[tuple[str, str], list[HeldOutCheck]]:
    """Points by operator and precision, products first."""
    found: dict[tuple[str, str], list[HeldOutCheck]] = {}
    for check in checks:
        found.setdefault((kind_of(check.point), check.point.detail.get("precision", "")), []).append(check)
    order = ("products", "attention", "memory", "starts")
    place = {name: number for number, name in enumerate(order)}
    return dict(
        sorted(found.items(), key=lambda item: (place[item[0][0].partition(",")[0].partition("-")[0]], item[0]))
    )


def point_of(check: HeldOutCheck) -> dict[str, Any]:
    """A point as plain data."""
    return {
        "operator": kind_of(check.point),
        "name": check.point.series,
        "precision": check.point.detail.get("precision", ""),
        "held_out": check.point.held_out,
        "counts": counts(check.point),
        "measured_seconds": check.measured,
        "predicted_seconds": check.predicted,
        "relative_error": check.error,
    }


def points_by_kind(checks: Iterable[HeldOutCheck]) -> dict[str, list[tuple[float, float, bool]]]:
    """(measured, predicted, held out) of the points that the model claims to know, by kind of operator."""
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for check in checks:
        if check.point.kind != "start" and counts(check.point):
            name = KINDS[check.point.kind]
            found.setdefault(name, []).append((check.measured, check.predicted, check.point.held_out))
    return found


KINDS = {"gemm": "products", "attention": "attention", "sweep": "memory-bound"}
"""What plots call the kinds of points."""


def _plain(found: JudgedFit | None) -> Mapping[str, Any] | None:
    return found.plain() if found else None


def _finite(error: float) -> float | None:
    return error if error < UNFELT else None


def _signed(error: float) -> str:
    return f"{round(error, 4) + 0.0:+.2%}"
