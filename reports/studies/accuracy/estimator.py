"""The estimator: constants with the least robust, weighted error, from several starts, and how well runs tell them.

Errors are logarithms of predicted over measured seconds. Small ones count by their squares, those beyond :data:`SCALE` by their
size (the pseudo-Huber loss): single runs stray, and what is not modelled must not bend constants. Whether every start led to the
same values is reported. Runs of one publication share what is not known of it, so that n of them weigh as
n / (1 + (n - 1) :data:`SHARED`) independent ones. Standard errors allow for that too: they are those of publications as clusters
(Liang and Zeger 1986), or of single errors, whichever is larger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...published.run import PublishedRun
from .responses import Array, Responses
from .targets import FittedConstant

SCALE = 0.06
"""The logarithmic error beyond which a run counts less."""

SHARED = 0.25
"""Part of the variance of errors that runs of a publication have in common; assumed."""

STARTS = (0.0, -0.3, 0.25)
"""Where iterations begin: logarithms of values over those in use."""

CLOSE = 0.002
"""Relative step of all values below which an iteration has ended."""

ROUNDS = 12

SAME = 0.01
"""How far solutions from different starts may be apart to count as one."""

VAGUE = 0.5
"""The relative standard error beyond which runs do not tell a value."""

LEAST_SLOPE = 1e-3
"""Of the error by a value's logarithm: below, no run depends on it."""

AT_BOUND = 0.005

BEGINS = 3
"""From how many of the points that were looked at, the best ones, the planes are searched."""

SIDES = ("lower", "upper")


@dataclass(frozen=True)
class Solution:
    """Where one start led: its values, what the loss came to, and whether it ended there."""

    start: tuple[float, ...]
    values: tuple[float, ...]
    loss: float
    converged: bool


@dataclass
class EstimatedConstants:
    """Values by parameter, with relative standard errors of those that runs tell.

    ``bounds`` has those that lie at one, ``untold`` those that no run tells well enough, which keep the value in use: neither has
    an error. ``solutions`` are those of all starts; ``errors`` the logarithmic ones of the runs fitted to.
    """

    values: dict[FittedConstant, float]
    standard_errors: dict[FittedConstant, float]
    bounds: dict[FittedConstant, str]
    untold: tuple[FittedConstant, ...]
    solutions: list[Solution]
    errors: Array = field(repr=False)

    @property
    def spread(self) -> float:
        """How far the solutions of different starts are apart, at most."""
        found = np.log([each.values for each in self.solutions])
        return float(np.ptp(found, axis=0).max(initial=0.0)) if len(found) else 0.0

    @property
    def same(self) -> bool:
        """Whether every start led to the same values."""
        return self.spread <= SAME and all(each.converged for each in self.solutions)

    @property
    def free(self) -> list[FittedConstant]:
        """Parameters that were estimated."""
        return [each for each in self.values if each not in self.untold and each not in self.bounds]


def weights_of(runs: Sequence[PublishedRun]) -> Array:
    """What each run counts, by how many of its publication there are."""
    names = [run.publication for run in runs]
    return np.array([1 / (1 + (names.count(name) - 1) * SHARED) for name in names])


def estimate(
    responses: Responses,
    start: dict[FittedConstant, float],
    rows: Sequence[int] | None = None,
    starts: Sequence[float] = STARTS,
    advance: Callable[[str], None] = lambda text: None,
    look: bool = True,
) -> EstimatedConstants:
    """Values with the least loss over some runs (by default all), each start followed until it ends.

    Without ``look`` the planes that are known stand for the simulator. Parameters that runs do not tell go one by one, the
    vaguest first, and the others are estimated again.
    """
    keys = list(responses.parameters)
    chosen = list(range(len(responses.runs))) if rows is None else list(rows)
    weights = weights_of([responses.runs[row] for row in chosen])
    first = np.array([each.inside(start[each]) for each in keys])
    if look:
        for offset in reversed(starts):
            responses.look(_moved(keys, first, range(len(keys)), offset))
    held = [at for at, slope in enumerate(responses.bends) if slope < LEAST_SLOPE]
    while True:
        moving = [at for at in range(len(keys)) if at not in held]
        solutions = [
            _follow(responses, _moved(keys, first, moving, offset), moving, chosen, weights, advance, look)
            for offset in (starts if moving else starts[:1])
        ]
        # With what later starts have seen, earlier ones may still move.
        solutions = [
            replace(_follow(responses, np.array(each.values), moving, chosen, weights, advance, look), start=each.start)
            for each in solutions
        ]
        best = min(solutions, key=lambda each: each.loss)
        values = np.array(best.values)
        errors, slopes = _errors(responses, values, chosen)
        bounds = {at: side for at in moving if (side := _side(keys[at], values[at]))}
        inner = [at for at in moving if at not in bounds]
        spreads = dict(zip(inner, _standard_errors(responses, chosen, errors, slopes[:, inner], weights), strict=True))
        vaguest = max(inner, key=lambda at: spreads[at], default=None)
        if vaguest is None or spreads[vaguest] <= VAGUE:
            break
        held.append(vaguest)
    return EstimatedConstants(
        values={key: float(f"{values[at]:.4g}") if at not in held else float(first[at]) for at, key in enumerate(keys)},
        standard_errors={keys[at]: spreads[at] for at in inner},
        bounds={keys[at]: side for at, side in bounds.items()},
        untold=tuple(keys[at] for at in held),
        solutions=solutions,
        errors=errors,
    )


def _side(parameter: FittedConstant, value: float) -> str:
    """The bound at which a value lies; empty within them."""
    for side, bound in zip(SIDES, (parameter.low, parameter.high), strict=True):
        if abs(np.log(value / bound)) < AT_BOUND:
            return side
    return ""


def _follow(
    responses: Responses,
    values: Array,
    moving: Sequence[int],
    rows: Sequence[int],
    weights: Array,
    advance: Callable[[str], None],
    look: bool,
) -> Solution:
    """From some values to where iterations end: look, solve on the planes, look there again."""
    start, converged = tuple(map(float, values)), not moving
    for _ in range(ROUNDS if moving else 0):
        if look:
            responses.look(values)
        found = _solve(responses, values, moving, rows, weights)
        step = float(np.abs(np.log(found / values)).max(initial=0.0))
        advance(f"a step of {step:.1%} from {', '.join(f'{values[at]:.4g}' for at in moving)}")
        if step < CLOSE:
            converged = True
            break
        values = found
    errors = _errors(responses, values, rows)[0]
    return Solution(start, tuple(map(float, values)), _loss(errors, weights), converged)


def _moved(keys: Sequence[FittedConstant], first: Array, moving: Sequence[int] | range, offset: float) -> Array:
    """Some values moved by the same factor, within their bounds."""
    values = first.copy()
    for at in moving:
        values[at] = keys[at].inside(first[at] * float(np.exp(offset)))
    return values


def _solve(responses: Responses, values: Array, moving: Sequence[int], rows: Sequence[int], weights: Array) -> Array:
    """The values with the least loss on the planes, within bounds: searched from the best of what was looked at.

    Beyond some rate a run is bound by something else, and its slope is none: from there alone no search would come back.
    """
    from scipy.optimize import minimize

    places = list(moving)
    bounds = [(np.log(responses.parameters[at].low), np.log(responses.parameters[at].high)) for at in places]

    def at(logarithms: Array) -> Array:
        moved = values.copy()
        moved[places] = np.exp(logarithms)
        return moved

    def loss(logarithms: Array) -> tuple[float, Array]:
        errors, slopes = _errors(responses, at(logarithms), rows)
        pulls = weights * errors / _stretch(errors)
        return _loss(errors, weights) / SCALE**2, pulls @ slopes[:, places] / SCALE**2

    nearest = sorted((values, *responses.seen), key=lambda point: loss(np.log(point[places]))[0])[:BEGINS]
    found = [
        minimize(
            loss,
            np.log(point[places]),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"ftol": 1e-12, "gtol": 1e-8},
        )
        for point in nearest
    ]
    return at(min(found, key=lambda each: float(each.fun)).x)


def _errors(responses: Responses, values: Array, rows: Sequence[int]) -> tuple[Array, Array]:
    """Logarithmic errors, and their derivatives by the logarithms of values."""
    ratios, slopes = responses.ratios(values)
    ratios, slopes = ratios[list(rows)], slopes[list(rows)]
    return np.log(ratios), slopes / ratios[:, None]


def _loss(errors: Array, weights: Array) -> float:
    """The pseudo-Huber loss: half the square of small errors, the size of large ones."""
    return float((weights * SCALE**2 * (_stretch(errors) - 1)).sum())


def _stretch(errors: Array) -> Array:
    """What an error weighs less than its square would make it: its robust weight is the inverse."""
    found: Array = np.sqrt(1 + (errors / SCALE) ** 2)
    return found


def _standard_errors(
    responses: Responses, rows: Sequence[int], errors: Array, slopes: Array, weights: Array
) -> list[float]:
    """Relative standard errors: of publications as clusters, or of single errors, whichever is larger."""
    count, free = slopes.shape[1], max(1.0, float(weights.sum()) - slopes.shape[1])
    if not count:
        return []
    robust = weights / _stretch(errors)
    information = np.linalg.pinv(slopes.T @ (robust[:, None] * slopes))
    single = information * float((robust * errors**2).sum()) / free
    names = [responses.runs[row].publication for row in rows]
    pulls = robust[:, None] * errors[:, None] * slopes
    sums = np.array([pulls[[each == name for each in names]].sum(axis=0) for name in dict.fromkeys(names)])
    clusters = len(sums)
    spread = information @ (sums.T @ sums) @ information * (clusters / (clusters - 1) if clusters > 2 else 0.0)
    return [float(np.sqrt(max(single[at, at], spread[at, at]))) for at in range(count)]
