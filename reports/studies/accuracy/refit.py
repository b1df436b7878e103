"""All fits whose values are in use, one after another, and the judgement of all published runs under constants without them.

A publication that is left out is left out of every fit at once: its runs are predicted with the accelerator's, the fabric's and
the library's constants that others told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....hardware.errors import InputError
from ...published.run import COLLECTIVE, PublishedRun
from .cases import LeftOut, case_of, setting_of
from .fitting import FittedConstants, fit, judged
from .intervals import Bounds, Score, covered, interval_of, kinds
from .responses import Ask, simulator
from .targets import REFITTED, STEPS, Target, settings, target_of
from .validate import accelerator_of

DENSE, EXPERTS = "dense", "experts"
"""Kinds of plans that have intervals of their own."""


@dataclass
class Refit:
    """Fits in the order in which they were made, and errors of all runs of steps, each without its publication.

    ``scores`` are those errors by kind; ``seen`` are errors under the fitted values, of the same runs.
    """

    fits: list[FittedConstants]
    unseen: dict[str, float]
    seen: dict[str, float]
    scores: list[Score]
    runs: dict[str, PublishedRun]

    @property
    def moved(self) -> list[tuple[str, str, float, float, str]]:
        """(fit, key, value in use, value found, how well it is told) of every constant."""
        rows = []
        for each in self.fits:
            found = each.estimate
            for parameter, value in found.values.items():
                key = " = ".join(parameter.keys)
                rows.append(
                    (f"{each.target.kind} {each.target.name}", key, each.used[parameter], value, each.told(parameter))
                )
        return rows

    @property
    def intervals(self) -> dict[tuple[str, str], Bounds]:
        """Intervals by kind of accelerator and plan, of accelerators with a fit."""
        fitted = {each.target.name for each in self.fits if each.target.kind == "accelerator"}
        wanted = dict.fromkeys([*kinds(self.scores), *((name, plan) for name in fitted for plan in (DENSE, EXPERTS))])
        found = {kind: interval_of(self.scores, *kind) for kind in wanted if kind[0] in fitted}
        return {kind: bounds for kind, bounds in found.items() if bounds}

    @property
    def coverage(self) -> float | None:
        """Share of measurements within intervals made without their publication."""
        inside = covered(self.scores)
        return float(np.mean(list(inside.values()))) if inside else None

    def judged(self) -> dict[str, dict[str, Any]]:
        """Errors of all runs, by kind of plan, and by accelerator and plan: each without its publication."""
        groups: dict[str, dict[str, float]] = {"all": self.unseen}
        for each in self.scores:
            for name in (each.plan, f"{each.accelerator}, {each.plan}"):
                groups.setdefault(name, {})[each.run] = self.unseen[each.run]
        return {name: judged(errors) for name, errors in groups.items()}

    def by_publication(self) -> dict[str, dict[str, Any]]:
        """Errors of each publication, without it."""
        groups: dict[str, dict[str, float]] = {}
        for name, error in self.unseen.items():
            groups.setdefault(self.runs[name].publication, {})[name] = error
        return {name: judged(errors) for name, errors in groups.items()}

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "fits": [each.plain() for each in self.fits],
            "moved": [
                {"fit": name, "key": key, "in_use": used, "found": found, "told": how}
                for name, key, used, found, how in self.moved
            ],
            "leave_one_publication_out": self.judged(),
            "publications": self.by_publication(),
            "intervals": [
                {"accelerator": kind, "plan": plan, "low": low, "high": high}
                for (kind, plan), (low, high) in self.intervals.items()
            ],
            "coverage": self.coverage,
            "rows": {"left_out": self.unseen, "fitted": self.seen},
        }


def refit(
    runs: Sequence[PublishedRun],
    advance: Callable[[str], None] = lambda text: None,
    targets: Iterable[tuple[str, str]] = REFITTED,
    ask: Ask | None = None,
    jobs: int | None = None,
) -> Refit:
    """Make every fit anew, each with the values of those before it; fits for which there are too few runs are passed over.

    ``ask`` simulates, by default ``jobs`` processes.
    """
    if ask is None:
        with simulator(jobs) as asked:
            return refit(runs, advance, targets, asked)
    fits: list[FittedConstants] = []
    for kind, name in targets:
        target = target_of(kind, name)

        def say(text: str, target: Target = target) -> None:
            advance(f"{target.kind} {target.name}: {text}")

        try:
            fits.append(fit(target, runs, say, beside=_beside(fits, runs), ask=ask))
        except InputError as few:
            say(str(few))
    advance("all runs without their publication")
    steps = [run for run in runs if _is_step(run)]
    unseen = _errors(steps, {run.id: _without(fits, run) for run in steps}, ask)
    known = [run for run in steps if run.id in unseen]
    seen = _errors(known, _beside(fits, known), ask)
    scores = [
        Score(
            run.id,
            run.publication,
            accelerator_of(run.machine_used),
            EXPERTS if run.model_used.experts else DENSE,
            float(-np.log1p(unseen[run.id])),
        )
        for run in known
    ]
    return Refit(fits, unseen, seen, scores, {run.id: run for run in runs})


def _is_step(run: PublishedRun) -> bool:
    """Whether a run is of a step that can be simulated."""
    if run.left_out or run.metric == COLLECTIVE or run.metric not in (*STEPS, "aggregate_throughput"):
        return False
    try:
        setting_of(case_of(run))
    except LeftOut:
        return False
    return True


def _beside(fits: Sequence[FittedConstants], runs: Sequence[PublishedRun]) -> dict[str, dict[str, float]]:
    """What fits so far say of each run's machine."""
    found: dict[str, dict[str, float]] = {}
    for each in fits:
        mine = settings(each.estimate.values)
        for run in runs:
            if each.target.touches(run):
                found[run.id] = {**found.get(run.id, {}), **mine}
    return found


def _without(fits: Sequence[FittedConstants], run: PublishedRun) -> dict[str, float]:
    """What fits say of a run's machine that have not seen its publication."""
    found: dict[str, float] = {}
    for each in fits:
        if each.target.touches(run):
            groups = {group.name: group.values for group in each.left_out}
            found |= settings(
                groups.get(run.publication if each.by == "publication" else run.model or "", each.estimate.values)
            )
    return found


def _errors(runs: Sequence[PublishedRun], values: Mapping[str, Mapping[str, float]], ask: Ask) -> dict[str, float]:
    """Relative errors by run."""
    found = ask([(run, values.get(run.id, {})) for run in runs])
    errors = {run.id: predicted / measured - 1 for run, (predicted, measured, _) in zip(runs, found, strict=True)}
    return {name: error for name, error in errors.items() if not np.isnan(error)}
