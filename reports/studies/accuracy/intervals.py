"""Split-conformal intervals: between which multiples of a prediction nine of ten measurements of a new publication should lie.

Scores are logarithms of measured over predicted, each under constants that were fitted without the score's publication. They are
grouped by kind of accelerator and of plan; a group too small for its quantiles takes those of all accelerators with such plans,
and then of all runs. Runs of one publication weigh less the more they are, as in the estimator. The new measurement has its own
weight, at infinity (Vovk et al. 2005; weighted as in Tibshirani et al. 2019): few scores make wide intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .estimator import SHARED
from .responses import Array

OUTSIDE = 0.05
"""Share of measurements below an interval, and above it."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """How far off one prediction was: the logarithm of measured over predicted."""

    run: str
    publication: str
    accelerator: str
    plan: str
    score: float


def interval_of(scores: Sequence[Score], accelerator: str, plan: str) -> Bounds | None:
    """Lower and upper multiple of the prediction for a kind of accelerator and plan; None where all scores are too few."""
    groups = (
        [each for each in scores if (each.accelerator, each.plan) == (accelerator, plan)],
        [each for each in scores if each.plan == plan],
        scores,
    )
    return next((found for group in groups if (found := _quantiles(group))), None)


def _quantiles(scores: Sequence[Score]) -> Bounds | None:
    """Quantiles of scores at both ends; None where the new one's own weight reaches them."""
    if not scores:
        return None
    names = [each.publication for each in scores]
    counts = np.array([names.count(name) for name in names])
    weights = 1 / (1 + (counts - 1) * SHARED)
    values, weights = np.array([each.score for each in scores]), weights / (weights.sum() + 1.0)
    if 1.0 - weights.sum() >= OUTSIDE:
        return None
    return float(np.exp(-_upper(-values, weights))), float(np.exp(_upper(values, weights)))


def _upper(values: Array, weights: Array) -> float:
    """The least value below which all but :data:`OUTSIDE` of the weight lies, the new one's above all."""
    order = np.argsort(values)
    place = int(np.searchsorted(np.cumsum(weights[order]), 1 - OUTSIDE - 1e-12))
    return float(values[order][min(place, len(values) - 1)])


def covered(scores: Sequence[Score]) -> dict[str, bool]:
    """Whether each run lies in the interval that the other publications' scores make; runs that have none are left out."""
    found = {}
    for each in scores:
        others = [other for other in scores if other.publication != each.publication]
        bounds = interval_of(others, each.accelerator, each.plan)
        if bounds:
            found[each.run] = bounds[0] <= np.exp(each.score) <= bounds[1]
    return found


def kinds(scores: Iterable[Score]) -> list[tuple[str, str]]:
    """Kinds of accelerator and plan that occur, in their order."""
    return list(dict.fromkeys((each.accelerator, each.plan) for each in scores))
