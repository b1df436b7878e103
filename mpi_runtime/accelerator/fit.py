"""The compute model's constants, fitted to one half of the points and judged on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ...hardware.precisions import Precision
from ..calibration.points import BenchPoint
from ..calibration.samples import SampleSeries
from .model import Constants, Predictor

Array = NDArray[np.float64]
Shapes = tuple[tuple[int, int], ...]

SCALE = 0.1
"""Relative error above which a point pulls less on the fit than by least squares."""

STARTS = ((0.3, 4.0), (1.0, 2.0), (1.0, 4.0), (1.0, 8.0), (1.0, 16.0))
"""Shares of the fastest sweep's rate at which fits begin to look for the bandwidths of memory and cache.

There may be several best places near by; and from where the cache is never felt, no slope leads to where it is.
"""

SHAPES: dict[str, tuple[Shapes, ...]] = {
    "cuda": (
        ((256, 128), (128, 256), (128, 128), (64, 128), (64, 64)),
        ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (32, 64), (64, 32), (32, 32)),
        ((128, 128), (64, 64)),
    ),
    "cpu": ((), ((64, 64),), ((32, 32),), ((16, 16),), ((64, 64), (1, 64))),
}
"""Sets of tiles that are tried, the one nearest to the fitted half is kept; the empty one is the roofline without tiles."""

UNFELT = 10.0
"""Relative standard error above which points hardly depend on a constant."""

FEW_ROUNDS, ROUNDS, BEST = 10, 60, 3
"""Evaluations of the model, each with its derivatives, at most: of every try, and of the so many best ones that go on."""


@dataclass(frozen=True)
class Parameter:
    """One number that a fit moves, on a logarithmic scale: where it starts, and its bounds."""

    name: str
    first: float
    low: float
    high: float


@dataclass(frozen=True)
class _Try:
    """Parameters where a search for them stands, and what the solver found there."""

    shapes: Shapes
    parameters: Sequence[Parameter]
    found: Any = None

    @property
    def loss(self) -> float:
        """What the solver makes small."""
        return float(self.found.cost)


@dataclass(frozen=True)
class AcceleratorFit:
    """Constants, their relative standard errors by name, and how many points and samples they were fitted to.

    An error is infinite where hardly a point depends on the constant, NaN where that is at a bound of what it may be.
    """

    constants: Constants
    errors: Mapping[str, float]
    loss: float
    points: int
    samples: int

    def certainty(self, name: str) -> str:
        """The standard error of a constant, in words."""
        error = self.errors.get(name, np.inf)
        return "at its bound" if np.isnan(error) else "hardly felt" if error > UNFELT else f"{error:.1%}"


@dataclass(frozen=True)
class JudgedFit:
    """Relative errors of points: their mean, median and worst size, their signed mean, and which one is worst.

    ``by_time`` is the mean size where each point counts by the seconds that it takes, as operators of a step do.
    """

    points: int
    mape: float
    median: float
    worst: float
    bias: float
    by_time: float
    where: str

    @classmethod
    def of(cls, checks: Iterable[HeldOutCheck]) -> JudgedFit | None:
        """Of these points; None where there are none."""
        held = list(checks)
        if not held:
            return None
        signed = np.array([check.error for check in held])
        seconds = np.array([check.measured for check in held])
        worst = int(np.abs(signed).argmax())
        return cls(
            len(held),
            float(np.abs(signed).mean()),
            float(np.median(np.abs(signed))),
            float(signed[worst]),
            float(signed.mean()),
            float((np.abs(signed) * seconds).sum() / seconds.sum()),
            held[worst].point.series,
        )

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class HeldOutCheck:
    """A point, the seconds that were measured and those that the machine's model has for it."""

    point: BenchPoint
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """The relative error, positive where the prediction is too long."""
        return self.predicted / self.measured - 1


def kind_of(point: BenchPoint) -> str:
    """What the tables call points of its kind."""
    detail = point.detail
    match point.kind:
        case "gemm":
            return f"products, {detail['layout']}"
        case "attention":
            way = "fused" if detail["fused"] else "unfused"
            mask = "causal" if detail["causal"] else "no mask"
            return f"attention, {way}, {mask}, {'backward' if detail['backward'] else 'forward'}"
        case "sweep":
            return "memory-bound"
    return "starts"


def counts(point: BenchPoint) -> bool:
    """Whether the model claims to know it: fused attention without a mask does more than the constant for a causal one says."""
    unmasked = point.kind == "attention" and point.detail["fused"] and not point.detail["causal"]
    return point.kind in ("gemm", "attention", "sweep") and not unmasked


class Fitter:
    """Fits constants to the points that are not held out; ``machine`` has the peaks, and what the fit leaves alone."""

    def __init__(self, series: Sequence[SampleSeries], machine: Machine) -> None:
        self.machine = machine
        self.told = [each for each in series if _told(each.point)]
        self.measured = np.array([each.median for each in self.told])
        self.predictor = Predictor([each.point for each in self.told])

    @cached_property
    def precisions(self) -> list[Precision]:
        """Those whose products were measured."""
        return list(dict.fromkeys(each.point.detail["precision"] for each in self._of("gemm")))

    def fit(self, candidates: Iterable[Shapes]) -> AcceleratorFit:
        """The best fit of all candidates for tiles, where nothing is :meth:`missing`: the most promising go on to the end."""
        tried = [
            self._solve(_Try(shapes, self._parameters(bool(shapes), start)), FEW_ROUNDS)
            for shapes in dict.fromkeys(candidates)
            for start in (STARTS if shapes else STARTS[:2])
        ]
        tried.sort(key=lambda each: each.loss)
        return self._as_fit(min((self._solve(each, ROUNDS) for each in tried[:BEST]), key=lambda each: each.loss))

    def missing(self) -> str:
        """What a fit cannot do without and was not measured, in words; empty where nothing is missing."""
        kinds = (("gemm", "products"), ("sweep", "memory-bound operators"))
        missing = " and ".join(name for kind, name in kinds if not self._of(kind))
        if missing:
            return missing
        return "too many points" if len(self.told) <= len(self._parameters(True, STARTS[0])) else ""

    def _solve(self, tried: _Try, rounds: int) -> _Try:
        """Go on from where a try stands, for so many rounds at most."""
        low, high, first = (
            np.log([getattr(each, name) for each in tried.parameters]) for name in ("low", "high", "first")
        )

        def residuals(logarithms: Array) -> Array:
            constants = self._constants(np.exp(logarithms), tried)
            ours: Array = np.log(self.predictor.seconds(constants.applied(self.machine)) / self.measured)
            return ours

        options: dict[str, Any] = {"loss": "soft_l1", "f_scale": SCALE, "diff_step": 1e-3, "max_nfev": rounds}
        found = solver()(residuals, np.clip(first, low, high), bounds=(low, high), **options)
        moved = [replace(each, first=float(at)) for each, at in zip(tried.parameters, np.exp(found.x), strict=True)]
        return _Try(tried.shapes, moved, found)

    def _as_fit(self, tried: _Try) -> AcceleratorFit:
        """A try as a fit, with its standard errors."""
        found, names = tried.found, [each.name for each in tried.parameters]
        errors = _standard_errors(found.jac, found.cost, len(self.measured), found.active_mask)
        samples = sum(len(each.used) for each in self.told)
        constants = self._constants(np.exp(found.x), tried)
        return AcceleratorFit(constants, dict(zip(names, errors, strict=True)), tried.loss, len(self.measured), samples)

    def _parameters(self, tiles: bool, start: tuple[float, float]) -> list[Parameter]:
        """What is fitted, with or without tiles; bandwidths of memory and cache begin at shares of the fastest sweep's rate."""
        fastest = max(each.point.size / each.median for each in self._of("sweep")) if self._of("sweep") else 1e9
        least = float(self.measured.min())
        kinds: list[str] = [*self.precisions] if tiles else ["all"]
        found = [Parameter(f"efficiency.{kind}", 0.8, 1e-3, 1.0) for kind in kinds]
        found += [Parameter(name, start[0] * fastest, 1e-3 * fastest, 30 * fastest) for name in ("read", "written")]
        found.append(Parameter("overhead", max(least, 1e-8), 1e-9, 1e-1))
        if tiles:
            found += [
                Parameter("fill", 32.0, 1e-2, 4096.0),
                Parameter("cache", start[1] * fastest, fastest, 1e4 * fastest),
            ]
        if tiles and self._of("attention"):
            found.append(Parameter("attention", 0.6, 1e-3, 1.0))
        return found

    def _constants(self, values: Array, tried: _Try) -> Constants:
        held = {each.name: float(value) for each, value in zip(tried.parameters, values, strict=True)}
        one = held.pop("efficiency.all", None)
        efficiency = {kind: held.pop(f"efficiency.{kind}") if one is None else one for kind in self.precisions}
        return Constants(efficiency, shapes=tried.shapes, **held)

    def _of(self, kind: str) -> list[SampleSeries]:
        return [each for each in self.told if each.point.kind == kind]


def _told(point: BenchPoint) -> bool:
    """Whether a point takes part in the fit."""
    return point.kind == "start" or (counts(point) and not point.held_out)


def checks(series: Sequence[SampleSeries], machine: Machine) -> list[HeldOutCheck]:
    """Every measured operator beside the machine's prediction of it."""
    told = [each for each in series if each.point.kind != "loop"]
    predicted = Predictor([each.point for each in told]).seconds(machine)
    return [
        HeldOutCheck(each.point, each.median, float(seconds)) for each, seconds in zip(told, predicted, strict=True)
    ]


def solver() -> Callable[..., Any]:
    """SciPy's robust least squares; raises :class:`InputError` where it is not installed."""
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise InputError("--accelerator: needs SciPy: pip install 'athanor[accelerator]'") from None
    solve: Callable[..., Any] = least_squares
    return solve


def _standard_errors(jacobian: Array, cost: float, points: int, at_bound: Array) -> list[float]:
    """Relative standard errors from the curvature at the solution; infinite of what no point depends on, NaN at a bound."""
    free = (np.abs(jacobian).max(axis=0) > 1e-9) & (at_bound == 0)
    errors = np.where(at_bound == 0, np.inf, np.nan)
    variance = 2 * cost / max(1, points - int(free.sum()))
    inverse = np.linalg.pinv(jacobian[:, free].T @ jacobian[:, free])
    errors[free] = np.sqrt(variance * np.diag(inverse))
    return [float(error) for error in errors]
