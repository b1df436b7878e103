"""Search over a study's space: points that a sampler of Optuna asks for, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ....hardware.errors import InputError
from .factors import Choices

if TYPE_CHECKING:
    from .study_file import Row, Sample


def search(sample: Sample, evaluated: Callable[[Sequence[Row]], Sequence[float | None]]) -> None:
    """Ask for all points of a sample and hear what they came to; None where a point failed.

    The tree-structured Parzen estimator (Bergstra et al. 2011) is told of a batch when all of it is done, in its order: so what
    it asks next depends on the seed alone, not on who was first.
    """
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise InputError("sample.method search: needs Optuna; install it with: pip install 'athanor[studies]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=sample.seed, n_startup_trials=max(sample.batch, 2 * len(sample.over)))
    towards: Literal["minimize", "maximize"] = "maximize" if sample.goal == "maximise" else "minimize"
    study = optuna.create_study(sampler=sampler, direction=towards)
    left = sample.points
    while left:
        trials = [study.ask() for _ in range(min(sample.batch, left))]
        rows = [_suggested(sample, each) for each in trials]
        for trial, value in zip(trials, evaluated(rows), strict=True):
            if value is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, value)
        left -= len(trials)


def _suggested(sample: Sample, trial: Any) -> Row:
    row: Row = {}
    for key, factor in sample.over.items():
        if isinstance(factor, Choices):
            row[key] = factor.values[trial.suggest_categorical(key, list(range(len(factor.values))))]
        else:
            row[key] = factor.at(trial.suggest_float(key, 0.0, 1.0))
    return row
