"""Sensitivity of a figure to what a study varies: Sobol's indices, or Morris's elementary effects, by SALib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ....hardware.errors import InputError

if TYPE_CHECKING:
    from .study_file import Sample

LEVELS = 4
"""Levels of a factor that Morris's trajectories step through: his own choice (1991)."""

RESAMPLES = 100
"""From which confidence intervals are taken."""


def designed_shares(sample: Sample) -> Any:
    """The points that the method asks for, in the unit cube: ``[point, factor]``.

    Sobol: Saltelli's design of a base sample, the next power of two from ``points / (factors + 2)`` up. Morris: trajectories of
    ``factors + 1`` points each.
    """
    salib(sample)
    problem, factors = _problem(sample), len(sample.over)
    if sample.method == "sobol":
        from SALib.sample import sobol

        base = 2 ** int(np.ceil(np.log2(max(2, sample.points / (factors + 2)))))
        return sobol.sample(problem, base, calc_second_order=False, seed=sample.seed)
    from SALib.sample import morris

    return morris.sample(problem, max(2, sample.points // (factors + 1)), num_levels=LEVELS, seed=sample.seed)


def sensitivity(sample: Sample, shares: Any, values: Sequence[float]) -> list[dict[str, Any]]:
    """A row for each factor: indices of the figure's variance (Sobol), or mean and spread of its effects (Morris).

    Raises :class:`InputError` where a point has no value: the designs of both methods need all of them.
    """
    found = np.asarray(values, dtype=float)
    if missing := int((~np.isfinite(found)).sum()):
        raise InputError(
            f"sample.method {sample.method}: {missing:,} of {len(found):,} points have no {sample.of}, and it needs all:"
            " see their reasons, and make the ranges narrower"
        )
    problem, names = _problem(sample), list(sample.over)
    if np.ptp(found) == 0:
        keys = ("first_order", "total") if sample.method == "sobol" else ("mean_effect", "spread")
        return [{"key": name, **dict.fromkeys(keys, 0.0)} for name in names]
    if sample.method == "sobol":
        from SALib.analyze import sobol

        told = sobol.analyze(problem, found, calc_second_order=False, num_resamples=RESAMPLES, seed=sample.seed)
        columns = {"first_order": "S1", "first_order_95": "S1_conf", "total": "ST", "total_95": "ST_conf"}
    else:
        from SALib.analyze import morris

        told = morris.analyze(
            problem, np.asarray(shares), found, num_levels=LEVELS, num_resamples=RESAMPLES, seed=sample.seed
        )
        columns = {"mean_effect": "mu_star", "mean_effect_95": "mu_star_conf", "signed_effect": "mu", "spread": "sigma"}
    return [
        {"key": name, **{column: float(told[key][place]) for column, key in columns.items()}}
        for place, name in enumerate(names)
    ]


def _problem(sample: Sample) -> dict[str, Any]:
    return {"num_vars": len(sample.over), "names": list(sample.over), "bounds": [[0.0, 1.0]] * len(sample.over)}


def salib(sample: Sample) -> None:
    """Raise :class:`InputError` where SALib is not installed."""
    from importlib.util import find_spec

    if find_spec("SALib") is None:
        raise InputError(f"sample.method {sample.method}: needs SALib; install it with: pip install 'athanor[studies]'")
