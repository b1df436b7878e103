"""Robust fits: lines of time over size, in one piece or two, and how well they meet what was held out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .samples import SampleSeries

Array = NDArray[np.float64]

SCALE = 0.05
"""Relative error above which a point pulls less on a fit than by least squares."""

NOTHING = 1e-6
"""A number of a line that is this small beside the other one, both made about 1, is none."""

LEAST_POINTS = 3
"""Points that a piece of a fit has at least: one more than it has numbers."""

EVIDENCE = 2.0
"""By how much two lines must be better than one by the Bayesian information criterion: positive evidence (Kass, Raftery 1995)."""

REPLICATES = 100
"""Resamplings from which a standard error is taken."""


@dataclass(frozen=True)
class FitPiece:
    """``start + slope * size`` from a size on, with standard errors; seconds, bytes."""

    least: float
    start: float
    slope: float
    start_error: float
    slope_error: float

    def at(self, size: float) -> float:
        """Seconds of a size."""
        return self.start + self.slope * size

    @property
    def rate(self) -> float:
        """Bytes per second of what is added; infinite where nothing is."""
        return 1.0 / self.slope if self.slope else float("inf")


@dataclass(frozen=True)
class Curve:
    """Time over size as one line, or as two with a break, where a library changes its protocol or a cache is full."""

    pieces: tuple[FitPiece, ...]

    def at(self, size: float) -> float:
        """Seconds of a size."""
        return next(piece for piece in reversed(self.pieces) if size >= piece.least).at(size)

    @property
    def breaks(self) -> tuple[float, ...]:
        """Sizes at which another line begins."""
        return tuple(piece.least for piece in self.pieces[1:])

    def errors(self, sizes: Sequence[float], seconds: Sequence[float]) -> Array:
        """Relative errors of the fit, positive where it is too long."""
        return np.array([self.at(size) / measured - 1 for size, measured in zip(sizes, seconds, strict=True)])


def line(sizes: Sequence[float] | Array, seconds: Sequence[float] | Array, least: float = 0.0) -> FitPiece:
    """A line that meets all points within the smallest relative errors; points that lie far off pull less.

    Neither number is negative. Standard errors are those of the fit: residual variance times the inverse of JᵀJ.
    """
    from scipy.optimize import least_squares

    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(set(x.tolist())) < 2:
        return FitPiece(least, float(np.median(y)), 0.0, float(np.std(y) / sqrt(len(y))), 0.0)
    scale = np.array([y.min(), (y / np.maximum(x, 1.0)).min()])  # makes both numbers about 1
    matrix = np.stack([1.0 / y, x / y], axis=1) * scale
    first = np.clip(np.linalg.lstsq(matrix, np.ones(len(y)), rcond=None)[0], 0.0, None)

    def residuals(numbers: Array) -> Array:
        off: Array = matrix @ numbers - 1.0
        return off

    found: Any = least_squares(residuals, first, bounds=(0.0, np.inf), loss="soft_l1", f_scale=SCALE)
    numbers = np.where(found.x > NOTHING * found.x.max(), found.x, 0.0)  # bounds are met from inside
    start, slope = numbers * scale
    residual = matrix @ found.x - 1.0
    variance = (1.4826 * float(np.median(np.abs(residual)))) ** 2 * len(y) / max(1, len(y) - 2)
    errors = np.sqrt(np.maximum(np.diag(variance * np.linalg.pinv(matrix.T @ matrix)), 0.0)) * scale
    return FitPiece(least, float(start), float(slope), float(errors[0]), float(errors[1]))


def curve(sizes: Sequence[float], seconds: Sequence[float]) -> Curve:
    """One line, or two with a break where there is evidence for them."""
    order = np.argsort(sizes)
    x, y = np.asarray(sizes, dtype=np.float64)[order], np.asarray(seconds, dtype=np.float64)[order]
    best = Curve((line(x, y),))
    score = criterion(_loss(best, x, y), len(x), 2) - EVIDENCE
    for place in range(LEAST_POINTS, len(x) - LEAST_POINTS + 1):
        if x[place] == x[place - 1]:
            continue
        low, high = line(x[:place], y[:place]), line(x[place:], y[place:])
        pieces = Curve((low, FitPiece(_break(low, high, x[place - 1], x[place]), *_numbers(high))))
        if (found := criterion(_loss(pieces, x, y), len(x), 5)) < score:
            best, score = pieces, found
    return best


def _numbers(piece: FitPiece) -> tuple[float, float, float, float]:
    return piece.start, piece.slope, piece.start_error, piece.slope_error


def _break(low: FitPiece, high: FitPiece, before: float, after: float) -> float:
    """Where one line goes over into the other: where they cut between the points on both sides, else in the middle of these."""
    if high.slope != low.slope and before <= (cut := (low.start - high.start) / (high.slope - low.slope)) <= after:
        return float(cut)
    return sqrt(max(before, 1.0) * after)


def _loss(fit: Curve, x: Array, y: Array) -> float:
    """The sum of squared relative errors, in which large ones count as their size (as in the fit)."""
    squared = (fit.errors(x.tolist(), y.tolist()) / SCALE) ** 2
    return float(SCALE**2 * np.sum(2 * (np.sqrt(1 + squared) - 1)))


def criterion(loss: float, points: int, numbers: int) -> float:
    """Bayesian information criterion of a fit with so many numbers; errors below 0.1 % count as that."""
    return points * log(max(loss / points, 1e-6)) + numbers * log(points)


def rate_of_large(sizes: Sequence[float], seconds: Sequence[float], least: float) -> float:
    """Bytes per second: the median slope between all pairs of points of ``least`` bytes or more (Theil and Sen)."""
    from scipy.stats import theilslopes

    large = [(x, y) for x, y in zip(sizes, seconds, strict=True) if x >= least]
    if len(large) < 2:
        size, longest = max(zip(sizes, seconds, strict=True))
        return size / longest
    slope = float(theilslopes([y for _, y in large], [x for x, _ in large])[0])
    return 1.0 / slope if slope > 0 else max(x / y for x, y in large)


def standard_error(series: Sequence[SampleSeries], statistic: Callable[[Sequence[float]], float]) -> float:
    """How much a number that follows from the medians of some series varies: these are resampled from their own samples."""
    random = np.random.default_rng(len(series))
    found = []
    for _ in range(REPLICATES):
        medians = [float(np.median(random.choice(each.used, len(each.used)))) for each in series]
        found.append(statistic(medians))
    return float(np.std(found))
