"""Figures as data: what is to be drawn, without how. ``plots/draw.py`` makes a figure of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...sim.studies.scaling import Study


@dataclass(frozen=True)
class ScalingCurve:
    """A scaling study, strong or weak, beside what was ``published`` of its largest point, if anything was.

    Strong: a speed-up over the smallest point; weak: FLOP/s. ``note`` says whether the simulation was fitted to it.
    """

    study: Study
    published: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Breakdown:
    """Shares of a step by phase and category; summaries of runs by name. ``what`` is the label of the names' axis."""

    summaries: Mapping[str, Mapping[str, Any]]
    what: str = ""


@dataclass(frozen=True)
class StepsByCategory:
    """Seconds of steps by category; ``published`` is the measured ratio of the second run to the first."""

    summaries: Mapping[str, Mapping[str, Any]]
    title: str
    what: str
    published: float | None = None
    note: str = ""


@dataclass(frozen=True)
class ExpertLoad:
    """Tokens that ranks of an expert-parallel group want and carry, over the mean, by name."""

    loads: Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class MemoryByPart:
    """Bytes of the fullest rank by part and its capacity, by name. ``what`` is the label of the names' axis."""

    tables: Mapping[str, Mapping[str, float]]
    what: str = ""


@dataclass(frozen=True)
class Beside:
    """Published and simulated values of each row, in the unit that ``what`` names."""

    rows: Mapping[str, tuple[float, float]]
    what: str
    title: str


@dataclass(frozen=True)
class Series:
    """Curves of (x, y) points by name, with the labels of both axes; ``logarithmic`` to base 2 on both."""

    curves: Mapping[str, Sequence[tuple[float, float]]]
    x: str
    y: str
    title: str
    logarithmic: bool = True


@dataclass(frozen=True)
class Bars:
    """A bar for each name, in the unit that ``what`` names; ``limit`` is a value and what it is, drawn across.

    ``names`` is the label of the names' axis.
    """

    sizes: Mapping[str, float]
    what: str
    title: str
    names: str
    limit: tuple[float, str] | None = None


@dataclass(frozen=True)
class ClaimErrors:
    """Relative errors of claims by kind, and what each kind is called."""

    errors: Mapping[str, Sequence[float]]
    kinds: Mapping[str, str]


FigureContent = (
    ScalingCurve | Breakdown | StepsByCategory | ExpertLoad | MemoryByPart | Beside | Series | Bars | ClaimErrors
)
