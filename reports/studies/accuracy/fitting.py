"""Constants of an accelerator, a fabric or a library, fitted to a stated half of the rows, and judged on the other half.

Errors are logarithms of predicted over measured seconds; their sum of squares is least, where those beyond the
median count ever less (Cauchy's loss), since single runs stray and what is not modelled must not bend constants. Steps are Gauss-
Newton ones on the simulator itself. Leaving a model or a source out changes the constants to first order in the derivatives
at the solution, which is what is reported for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....sim.workers import Workers, on_cores
from ...published.run import PublishedRun
from .metrics import predict, simulated
from .targets import Target, runs_of, split

Array = NDArray[np.float64]
Keys = list[tuple[str, ...]]

SHARES = ("efficiency", "dma_", "tiles.precisions")
"""Parts of keys whose values are at most 1."""

LEAST_SCALE = 0.04
"""The logarithmic error from which on a row counts less is the median one, and at least this."""

STEP, MOST = 0.05, 0.3
"""Relative steps: of the derivatives, and of an iteration at most."""

ROUNDS = 2
LEAST_SLOPE = 1e-3

VAGUE = 1.0
"""The relative standard error beyond which rows do not tell a value."""

LEAST_BANDWIDTH = 0.5
"""Of a memory's bandwidth: sweeps on every accelerator reach more; what rows lack beyond that is not for it to explain."""

QUANTILES = (0.05, 0.95)


@dataclass
class FittedConstants:
    """Values by key with their relative standard errors, and errors of rows: of those fitted to, and of those held out.

    ``left_out`` are errors of the rows fitted to under constants that were fitted without their model or source, by row.
    """

    target: Target
    values: dict[str, float]
    standard_errors: dict[str, float]
    fitted: dict[str, float]
    held_out: dict[str, float]
    left_out: dict[str, dict[str, float]] = field(default_factory=dict)
    interval: tuple[float, float] = (1.0, 1.0)

    @property
    def coverage(self) -> float | None:
        """Share of the held-out rows that the interval, taken from the fitted ones, covers."""
        low, high = self.interval
        inside = [low <= 1 / (1 + error) <= high for error in self.held_out.values()]
        return sum(inside) / len(inside) if inside else None

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": self.target.kind,
            "name": self.target.name,
            "machines": [machine.name for machine in self.target.machines],
            "values": self.values,
            "standard_errors": self.standard_errors,
            "interval": list(self.interval),
            "coverage": self.coverage,
            "errors": {
                "fitted": judged(self.fitted),
                "held_out": judged(self.held_out),
                **{f"leave_one_{what}_out": judged(errors) for what, errors in self.left_out.items()},
            },
            "rows": {"fitted": self.fitted, "held_out": self.held_out},
        }


def judged(errors: Mapping[str, float]) -> dict[str, Any]:
    """How many rows, and what their errors come to."""
    sizes = np.abs(list(errors.values()))
    if not len(sizes):
        return {"rows": 0, "mape": None, "median": None, "worst": None, "bias": None}
    signed = np.array(list(errors.values()))
    return {
        "rows": len(sizes),
        "mape": float(sizes.mean()),
        "median": float(np.median(sizes)),
        "worst": float(signed[sizes.argmax()]),
        "bias": float(signed.mean()),
    }


def fit(
    target: Target,
    rows: Sequence[PublishedRun],
    advance: Callable[[str], None] = lambda text: None,
    every: bool = False,
    jobs: int = 1,
) -> FittedConstants:
    """Fit the target's constants to the runs whose records say so, and predict the others.

    With ``every`` they are fitted to all rows, and no row is held out: what is left is to leave each model and source out.
    ``jobs`` processes predict them.
    """
    chosen = runs_of(target, rows)
    with on_cores(jobs) as crew:
        run = _Evaluator(crew).errors
        values = target.start
        keys = list(values)
        half, others = (chosen, []) if every else split(chosen)
        advance(f"{len(chosen)} rows, {len(half)} of them fitted to")
        errors, slopes = run(half, values), np.zeros((len(half), len(keys)))
        for number in range(ROUNDS):
            slopes = _slopes(run, half, keys, values, errors)
            if not number:
                keys, slopes = _told(errors, slopes, keys, values)
            step = _solve(errors, slopes, keys, values)
            values |= {key: values[key] * float(np.exp(each)) for key, each in zip(keys, step, strict=True)}
            errors = run(half, values)
            mape = float(np.abs(np.expm1(errors)).mean())
            advance(f"round {number + 1}: mean error {mape:.1%} of the rows fitted to")
            if np.abs(step).max(initial=0.0) < STEP / 5:
                break
        advance(f"the {len(others)} others")
        found = _report(target, half, keys, values, errors, slopes)
        found.held_out = _named(others, run(others, values)) if others else {}
    return found


def _told(errors: Array, slopes: Array, keys: Keys, values: Mapping[tuple[str, ...], float]) -> tuple[Keys, Array]:
    """The keys that the rows tell of, and derivatives by these; the others keep their values.

    Rows depend on them, and would hold them to within :data:`VAGUE` after a first step; the vaguest goes first, and the rest is
    asked again.
    """
    used = [at for at in range(len(keys)) if np.abs(slopes[:, at]).max(initial=0.0) > LEAST_SLOPE]
    while used:
        chosen, mine = [keys[at] for at in used], slopes[:, used]
        left = errors + mine @ _solve(errors, mine, chosen, values)
        spreads = _standard_errors(left, mine, chosen)
        vaguest = max(used, key=lambda at: spreads[keys[at][0]])
        if spreads[keys[vaguest][0]] <= VAGUE:
            break
        used.remove(vaguest)
    return [keys[at] for at in used], slopes[:, used]


def _report(
    target: Target,
    rows: Sequence[PublishedRun],
    keys: Sequence[tuple[str, ...]],
    values: Mapping[tuple[str, ...], float],
    errors: Array,
    slopes: Array,
) -> FittedConstants:
    """The fit with its errors on the rows fitted to."""
    fitted = np.exp(-errors)
    return FittedConstants(
        target=target,
        values={key: float(f"{values[group]:.4g}") for group in keys for key in group},
        standard_errors=_standard_errors(errors, slopes, keys),
        fitted=_named(rows, errors),
        held_out={},
        left_out={
            "model": _left_out(rows, [row.model or "" for row in rows], keys, values, errors, slopes),
            "publication": _left_out(rows, [row.publication for row in rows], keys, values, errors, slopes),
        },
        interval=(float(np.quantile(fitted, QUANTILES[0])), float(np.quantile(fitted, QUANTILES[1]))),
    )


def _named(rows: Sequence[PublishedRun], errors: Array) -> dict[str, float]:
    """Relative errors by row."""
    return {row.id: float(np.expm1(error)) for row, error in zip(rows, errors, strict=True)}


def _slopes(
    run: _Run,
    rows: Sequence[PublishedRun],
    keys: Sequence[tuple[str, ...]],
    values: Mapping[tuple[str, ...], float],
    errors: Array,
) -> Array:
    """Derivatives of the rows' errors by the logarithms of values, ``[rows, keys]``."""
    columns = [(run(rows, {**values, group: values[group] * float(np.exp(-STEP))}) - errors) / -STEP for group in keys]
    return np.array(columns).T.reshape(len(rows), len(keys))


def _solve(
    errors: Array, slopes: Array, keys: Sequence[tuple[str, ...]], values: Mapping[tuple[str, ...], float]
) -> Array:
    """The step that makes the errors least to first order, within bounds."""
    from scipy.optimize import least_squares

    if not keys or not len(errors):
        return np.zeros(len(keys))
    high = [_room(group, values[group]) for group in keys]
    low = np.array([_floor(group, values[group]) for group in keys])

    def off(step: Array) -> Array:
        moved: Array = errors + slopes @ step
        return moved

    def slope(step: Array) -> Array:
        return slopes

    found = least_squares(
        off,
        np.clip(np.zeros(len(keys)), low + 1e-9, np.array(high) - 1e-9),
        jac=slope,
        loss="cauchy",
        f_scale=_scale(errors),
        bounds=(low, high),
    )
    return np.asarray(found.x, dtype=np.float64)


def _scale(errors: Array) -> float:
    """Beyond which errors count less."""
    return max(LEAST_SCALE, float(np.median(np.abs(errors))))


def _floor(group: tuple[str, ...], value: float) -> float:
    """How far the logarithm of a value may fall."""
    least = np.log(LEAST_BANDWIDTH / value) if "dma_" in group[0] else -MOST
    return float(min(MOST / 2, max(-MOST, least)))


def _room(group: tuple[str, ...], value: float) -> float:
    """How far the logarithm of a value may rise."""
    share = any(part in group[0] for part in SHARES)
    return min(MOST, max(1e-6, -float(np.log(value)))) if share else MOST


def _standard_errors(errors: Array, slopes: Array, keys: Sequence[tuple[str, ...]]) -> dict[str, float]:
    """Relative standard errors of the values, strays counted by their weight in the fit."""
    weight = 1 / (1 + (errors / _scale(errors)) ** 2)
    freedom = max(1.0, float(weight.sum()) - len(keys))
    spread = float((weight * errors**2).sum() / freedom)
    covariance = np.linalg.pinv(slopes.T @ (weight[:, None] * slopes)) * spread
    return {key: float(np.sqrt(covariance[place, place])) for place, group in enumerate(keys) for key in group}


def _left_out(
    rows: Sequence[PublishedRun],
    groups: Sequence[str],
    keys: Sequence[tuple[str, ...]],
    values: Mapping[tuple[str, ...], float],
    errors: Array,
    slopes: Array,
) -> dict[str, float]:
    """Errors of the rows of each group under constants fitted to the rows of all others; none where there is one group."""
    found: dict[str, float] = {}
    if len(set(groups)) < 2:
        return found
    for group in dict.fromkeys(groups):
        mine = np.array([each == group for each in groups])
        step = _solve(errors[~mine], slopes[~mine], keys, values)
        moved = errors[mine] + slopes[mine] @ step
        names = [row.id for row, own in zip(rows, mine, strict=True) if own]
        found |= dict(zip(names, np.expm1(moved).tolist(), strict=True))
    return found


_Run = Callable[[Sequence[PublishedRun], Mapping[tuple[str, ...], float]], Array]


@dataclass(frozen=True)
class _Evaluator:
    """Predicts rows with other constants, by the workers that there are."""

    crew: Workers

    def errors(self, rows: Sequence[PublishedRun], values: Mapping[tuple[str, ...], float]) -> Array:
        """Logarithmic errors of rows."""
        settings = {key: value for group, value in values.items() for key in group}
        made = dict(self.crew.results(_error, [(row, settings) for row in rows]))
        return np.array([made[number] for number in range(len(rows))])


def _error(work: tuple[PublishedRun, dict[str, float]]) -> float:
    """The logarithm of predicted over measured seconds, with other values in the row's machine."""
    row, settings = work
    made = predict(row, simulated, lambda machine: machine.changed(settings))
    if made.seconds is None or made.measured_seconds is None:  # a bandwidth, of which the inverse is a time
        return float(np.log(row.value / made.value))
    return float(np.log(made.seconds / made.measured_seconds))
