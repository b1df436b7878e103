"""Constants of an accelerator, a fabric or a library, fitted to published runs, and judged on runs that they have not seen.

Runs whose records do not say ``fitted`` are held out. The others are judged under constants that were estimated again without
their publication (or model), so that neighbours of one sweep never stand on both sides. Those estimates run on the planes that
the full one has seen; the errors of what was left out are simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ....hardware.errors import InputError
from ...published.run import COLLECTIVE, PublishedRun
from .cases import case_of, setting_of
from .estimator import EstimatedConstants, estimate
from .null_model import guess_of, null_predictions
from .responses import Answer, Ask, Responses, simulator
from .targets import FittedConstant, Target, runs_of, settings, split
from .validate import accelerator_of

Group = Literal["publication", "model"]

Settings = Mapping[str, float]


@dataclass
class LeftOutGroup:
    """A publication (or model) that was left out: the constants without it, and the errors of its runs under these."""

    name: str
    values: dict[FittedConstant, float]
    errors: dict[str, float]


@dataclass
class FittedConstants:
    """What was estimated of a target, and relative errors by run: of those fitted to, held out, and left out by group."""

    target: Target
    estimate: EstimatedConstants
    used: dict[FittedConstant, float]
    fitted: dict[str, float]
    held_out: dict[str, float]
    by: Group
    left_out: list[LeftOutGroup] = field(default_factory=list)
    null: dict[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """Values by key of the machine file, of parameters that runs tell."""
        return settings({p: v for p, v in self.estimate.values.items() if p not in self.estimate.untold})

    @property
    def standard_errors(self) -> dict[str, float]:
        """Relative standard errors by key; none of values at a bound."""
        return settings(self.estimate.standard_errors)

    def told(self, parameter: FittedConstant) -> str:
        """How well runs tell a parameter, in words."""
        if parameter in self.estimate.untold:
            return "not told: kept"
        if parameter in self.estimate.bounds:
            return f"at its {self.estimate.bounds[parameter]} bound"
        return f"standard error {100 * self.estimate.standard_errors[parameter]:.0f} %"

    @property
    def sources(self) -> dict[str, str]:
        """What a machine file says of each value: the fit, to how many runs, and how well they tell it."""
        every = "" if self.held_out or self.target.kind != "library" else " --all-rows"
        runs = len(self.fitted) + len(self.held_out)
        fit = f"fitted: athanor fit {self.target.kind} {self.target.name}{every}, to {len(self.fitted)} of {runs} runs"
        told = {p: self.told(p) for p in self.estimate.values if p not in self.estimate.untold}
        return {key: f"{fit}; {how}" for parameter, how in told.items() for key in parameter.keys}

    @property
    def left_out_errors(self) -> dict[str, float]:
        """Errors of all runs that were left out, each with its group."""
        return {run: error for group in self.left_out for run, error in group.errors.items()}

    @property
    def unseen(self) -> dict[str, float]:
        """Errors of runs under constants that have not seen them."""
        return {**self.left_out_errors, **self.held_out}

    def plain(self) -> dict[str, Any]:
        """As plain data; ``docs/formats/accuracy.md`` defines each key."""
        found = self.estimate
        return {
            "kind": self.target.kind,
            "name": self.target.name,
            "machines": [machine.name for machine in self.target.machines],
            "parameters": len(found.free),
            "values": self.values,
            "sources": self.sources,
            "in_use": settings(self.used),
            "standard_errors": self.standard_errors,
            "at_bound": {key: side for parameter, side in found.bounds.items() for key in parameter.keys},
            "not_told": [key for parameter in found.untold for key in parameter.keys],
            "starts": [
                {"values": list(each.values), "loss": each.loss, "converged": each.converged}
                for each in found.solutions
            ],
            "spread_of_starts": found.spread,
            "errors": {
                "fitted": judged(self.fitted),
                "held_out": judged(self.held_out),
                f"leave_one_{self.by}_out": judged(self.left_out_errors),
                "null": judged(self.null),
            },
            "left_out": [
                {"name": each.name, "values": settings(each.values), "errors": judged(each.errors)}
                for each in self.left_out
            ],
            "rows": {"fitted": self.fitted, "held_out": self.held_out, "left_out": self.left_out_errors},
        }


def judged(errors: Mapping[str, float]) -> dict[str, Any]:
    """How many runs, and what their errors come to."""
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
    runs: Sequence[PublishedRun],
    advance: Callable[[str], None] = lambda text: None,
    every: bool = False,
    by: Group = "publication",
    beside: Mapping[str, Settings] | None = None,
    ask: Ask | None = None,
    jobs: int | None = None,
) -> FittedConstants:
    """Fit the target's constants to the runs whose records say so, with ``every`` to all; judge them on what they have not seen.

    A publication that is alone cannot be left out: then its models are, one by one. ``beside`` are other values of machines by
    run, such as those of fits before this one. ``ask`` simulates, by default ``jobs`` processes. Raises :class:`InputError` where
    no run may be fitted to.
    """
    if ask is None:
        with simulator(jobs) as asked:
            return fit(target, runs, advance, every, by, beside, asked)
    chosen = runs_of(target, runs)
    mine, others = (chosen, []) if every else split(chosen)
    if not mine:
        raise InputError(f"fit {target.kind} {target.name}: no run about it may be fitted to (fitted = true)")
    advance(f"{len(chosen)} runs, {len(mine)} of them fitted to")
    used = target.start
    responses = Responses(mine, tuple(used), ask, beside or {})
    found = estimate(responses, used, advance=advance)
    if by == "publication" and len({run.publication for run in mine}) == 1:
        by = "model"
    advance(f"each {by} left out")
    groups = _left_out(responses, found, by)
    return FittedConstants(
        target=target,
        estimate=found,
        used=used,
        fitted=_errors(mine, ask, found.values, beside),
        held_out=_errors(others, ask, found.values, beside),
        by=by,
        left_out=[
            LeftOutGroup(name, values, _errors([mine[row] for row in rows], ask, values, beside))
            for name, rows, values in groups
        ],
        null=_null(chosen, _answers(chosen, ask, found.values, beside)),
    )


def _left_out(
    responses: Responses, found: EstimatedConstants, by: Group
) -> list[tuple[str, list[int], dict[FittedConstant, float]]]:
    """Each group's name, its rows, and the values without them; none where there is one group."""
    names = [run.publication if by == "publication" else run.model or "" for run in responses.runs]
    groups = []
    for name in dict.fromkeys(names):
        rest = [row for row, each in enumerate(names) if each != name]
        if rest:
            without = estimate(responses, found.values, rest, starts=(0.0,), look=False)
            groups.append((name, [row for row, each in enumerate(names) if each == name], without.values))
    return groups


def _errors(
    runs: Sequence[PublishedRun],
    ask: Ask,
    values: Mapping[FittedConstant, float],
    beside: Mapping[str, Settings] | None,
) -> dict[str, float]:
    """Simulated relative errors by run."""
    found = _answers(runs, ask, values, beside)
    return {run.id: predicted / measured - 1 for run, (predicted, measured, _) in zip(runs, found, strict=True)}


def _answers(
    runs: Sequence[PublishedRun],
    ask: Ask,
    values: Mapping[FittedConstant, float],
    beside: Mapping[str, Settings] | None,
) -> list[Answer]:
    mine, other = settings(values), beside or {}
    return ask([(run, {**other.get(run.id, {}), **mine}) for run in runs])


def _null(runs: Sequence[PublishedRun], answers: Sequence[Answer]) -> dict[str, float]:
    """Relative errors of the null model on runs of steps, its constant fitted on the other models among them."""
    told = [(run, measured) for run, (_, measured, _) in zip(runs, answers, strict=True) if run.metric != COLLECTIVE]
    guesses = []
    for run, measured in told:
        setting = setting_of(case_of(run))
        guesses.append(guess_of(setting, accelerator_of(setting.machine), measured))
    return {
        run.id: seconds / measured - 1
        for (run, measured), seconds in zip(told, null_predictions(guesses), strict=True)
        if seconds is not None
    }
