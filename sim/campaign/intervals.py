"""How often to save: closed forms for exponential faults and constant costs, and what a training then takes.

Young 1974 and Daly 2006 (A higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22). An interval is
the work between two checkpoints; ``save`` is what a checkpoint keeps the job from working, ``mtbf`` the mean time between faults
of the whole job. All times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, expm1, sqrt


def young(save: float, mtbf: float) -> float:
    """sqrt(2 δ M): the interval from checkpoint to checkpoint, of the first order."""
    return sqrt(2.0 * save * mtbf)


def daly_first_order(save: float, mtbf: float) -> float:
    """sqrt(2 δ M) - δ (Daly 2006, equation 12)."""
    return young(save, mtbf) - save


def daly(save: float, mtbf: float) -> float:
    """Daly's higher order (equation 37); M itself where a checkpoint takes 2 M or longer."""
    if save >= 2.0 * mtbf:
        return mtbf
    part = save / (2.0 * mtbf)
    return young(save, mtbf) * (1.0 + sqrt(part) / 3.0 + part / 9.0) - save


def expected_seconds(work: float, interval: float, save: float, restart: float, mtbf: float) -> float:
    """What ``work`` takes on average: M e^(R/M) (e^((τ + δ)/M) - 1) work/τ (Daly 2006, equation 20).

    Faults strike during checkpoints and restarts too; ``restart`` is all from a fault until work goes on.
    """
    return mtbf * exp(restart / mtbf) * expm1((interval + save) / mtbf) * work / interval


def level_intervals(saves: Sequence[float], mtbfs: Sequence[float]) -> list[float]:
    """The interval of each level, sqrt(2 C / λ), where ``mtbfs`` are those of the faults that need just this level."""
    return [young(save, mtbf) for save, mtbf in zip(saves, mtbfs, strict=True)]


def level_overhead(saves: Sequence[float], mtbfs: Sequence[float]) -> float:
    """Share of the time that levels cost at these intervals, of the first order: Σ sqrt(2 λ C)."""
    return sum(sqrt(2.0 * save / mtbf) for save, mtbf in zip(saves, mtbfs, strict=True))
