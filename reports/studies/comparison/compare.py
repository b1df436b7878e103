"""How far predictions are from runs: step, phases, operations, bytes; zero-fit and fitted predictions apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....hardware.errors import InputError
from ....workloads.results.run import Run
from ....workloads.results.totals import LinkUse, Totals
from .rows import ComparisonRow, Errors, OperationRow, Seen, exposed_rows, grouped_rows, kind, row_of
from .sides import Match, Side, differences, matches, require_same_plan
from .timeline import Timeline, timeline

COMPARED = ("bytes_per_step", "mean_utilisation", "max_utilisation")
"""What is compared of the use of each kind of link."""


@dataclass(frozen=True)
class Pair:
    """A prediction beside its run.

    Rows of phases and categories are exposed seconds, means over ranks, as in a summary. ``groups`` and ``operations``
    are seconds from start to end on the ranks that both sides observe, so that waiting for slower ranks is not in them.
    """

    name: str
    files: tuple[str, str]
    totals: tuple[Totals, Totals]
    plans: tuple[dict[str, Any], dict[str, Any]]
    notes: list[str]
    matched: list[Match]
    step: ComparisonRow
    phases: list[ComparisonRow]
    categories: list[ComparisonRow]
    groups: dict[str, list[ComparisonRow]]  # kinds, axes, levels
    operations: list[OperationRow]  # summed over layers
    details: list[OperationRow]  # one by one
    links: list[dict[str, Any]]
    timelines: tuple[Timeline, Timeline]

    @property
    def fitted(self) -> list[str]:
        """Keys of the machine file that the prediction rests on and that were fitted or measured."""
        return self.totals[0].fitted_constants

    @property
    def labelled(self) -> list[tuple[str, OperationRow]]:
        """Operations under names that tell them apart: with their ranks where several are compared."""
        several = len(self.matched) > 1
        return [(f"{row.name} on {row.match.predicted}" if several else row.name, row) for row in self.operations]

    @property
    def errors(self) -> dict[str, Errors]:
        """Over operations, each counting the same; over operations by measured time; over phases."""
        operations = [(name, row.seconds) for name, row in self.labelled]
        return {
            "operations": Errors.of(operations),
            "operations_by_time": Errors.of(operations, weighted=True),
            "phases": Errors.of((row.name, row) for row in self.phases),
        }

    def plain(self) -> dict[str, Any]:
        """As plain data; ``docs/formats/comparison.md`` defines each key."""
        predicted, measured = self.totals
        return {
            "name": self.name,
            "model": predicted.model,
            "mesh": predicted.mesh,
            "placement": predicted.placement,
            "ranks": predicted.ranks,
            "nodes": predicted.nodes,
            "predicted": self._side(0),
            "measured": {**self._side(1), "conditions": measured.measured},
            "fitted_constants": self.fitted,
            "notes": self.notes,
            "matched": [
                {"ranks": each.label, "predicted": each.predicted, "measured": each.measured} for each in self.matched
            ],
            "step": self.step.plain("seconds"),
            "phases": [row.plain("seconds") for row in self.phases],
            "categories": [row.plain("seconds") for row in self.categories],
            **{group: [row.plain("seconds") for row in rows] for group, rows in self.groups.items()},
            "operations": [
                {"ranks": row.match.label, **row.seconds.plain("seconds"), "count": row.count, **row.what.plain()}
                for row in self.operations
            ],
            "errors": {name: each.plain() for name, each in self.errors.items()},
            "load": {"predicted": predicted.load_balance, "measured": measured.load_balance},
            "traffic": [
                {
                    "ranks": row.match.label,
                    **row.nbytes.plain("bytes"),
                    "collective": row.what.collective,
                    "axes": row.what.axes,
                }
                for row in self.operations
                if row.what.collective
            ],
            "links": self.links,
        }

    def _side(self, place: int) -> dict[str, Any]:
        """File, machine, steps and plan of the prediction (0) or of the run (1)."""
        totals = self.totals[place]
        steps = len(totals.each_step_seconds)
        return {"file": self.files[place], "machine": totals.machine, "steps": steps, "plan": self.plans[place]}


@dataclass(frozen=True)
class Comparison:
    """Pairs of predictions and runs; those whose predictions rest on fitted constants are judged apart."""

    pairs: list[Pair]

    def group(self, fitted: bool) -> list[Pair]:
        """The pairs whose predictions rest on fitted constants, or those that rest on none."""
        return [pair for pair in self.pairs if bool(pair.fitted) == fitted]

    def plain(self) -> dict[str, Any]:
        """As plain data: ``pairs``, and the errors of the step over ``zero_fit`` and over ``fitted`` pairs."""
        groups = {"zero_fit": self.group(False), "fitted": self.group(True)}
        return {
            "pairs": [pair.plain() for pair in self.pairs],
            **{name: over_pairs(pairs) if pairs else None for name, pairs in groups.items()},
        }


def compare_runs(*sources: str | Path | Run, on_pair: Callable[[Pair], None] = lambda pair: None) -> Comparison:
    """Compare predictions with runs, given in turn: predicted, measured, and more of both.

    Each is a file that ``Run.save`` wrote, or a Run. ``on_pair`` is told of each pair that is done. Raises
    :class:`InputError` for an odd number of them, for a file that holds no run, and where the two of a pair are not of
    the same model, mesh, placement, batch and schedule.
    """
    require_pairs(sources)
    pairs = []
    for name, predicted, measured in zip(_names(sources[::2]), sources[::2], sources[1::2], strict=True):
        pairs.append(compare_pair(name, _side(predicted, "prediction", name), _side(measured, "run", name)))
        on_pair(pairs[-1])
    return Comparison(pairs)


def require_pairs(sources: Sequence[Any]) -> None:
    """Raise :class:`InputError` for an odd number of runs, or where SciPy is missing that several pairs need."""
    if not sources or len(sources) % 2:
        raise InputError(f"compare: {len(sources)} files; give predicted and measured in turn, two for each pair")
    if len(sources) > 2:
        _spearman()


def compare_pair(name: str, predicted: Side, measured: Side) -> Pair:
    """Compare a prediction with its run; raises :class:`InputError` where they are not of the same plan."""
    require_same_plan(predicted, measured)
    matched, notes = matches(predicted, measured)
    ours, theirs = predicted.totals, measured.totals
    seen = [Seen.of(match, predicted, measured) for match in matched]
    shown = next((match for match in matched if match.predicted == "heaviest"), matched[0])
    return Pair(
        name=name,
        files=(predicted.name, measured.name),
        totals=(ours, theirs),
        plans=(predicted.run.plan, measured.run.plan),
        notes=[*differences(predicted, measured), *notes],
        matched=matched,
        step=row_of("step", np.array(ours.each_step_seconds), np.array(theirs.each_step_seconds)),
        phases=exposed_rows(ours.phases, theirs.phases, theirs.each_step_phases),
        categories=exposed_rows(ours.breakdown, theirs.breakdown, theirs.each_step_breakdown),
        groups={
            "kinds": grouped_rows(seen, predicted.what, kind),
            "axes": grouped_rows(seen, predicted.what, lambda name, what: what.axes),
            "levels": grouped_rows(seen, predicted.what, lambda name, what: what.level),
        },
        operations=[row for each in seen for row in each.rows(predicted.what, summed=True)],
        details=[row for each in seen for row in each.rows(predicted.what, summed=False)],
        links=_links(ours.links, theirs.links),
        timelines=(timeline(predicted, shown.predicted), timeline(measured, shown.measured[0])),
    )


def over_pairs(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Errors of the step over configurations, and whether the prediction puts these in their true order.

    ``rank_correlation`` is Spearman's, of predicted and measured step times; None for a single pair, and where all
    times of a side are equal.
    """
    found = Errors.of((pair.name, pair.step) for pair in pairs).plain()
    predicted, measured = ([getattr(pair.step, side) for pair in pairs] for side in ("predicted", "measured"))
    ordered = min(len(set(predicted)), len(set(measured))) > 1
    correlation = float(_spearman()(predicted, measured).statistic) if ordered else None
    del found["count"]
    return {"pairs": [pair.name for pair in pairs], **found, "rank_correlation": correlation}


def _links(ours: Sequence[LinkUse], theirs: Sequence[LinkUse]) -> list[dict[str, Any]]:
    """Kinds of link that both sides tell of: bytes of a step, and shares of it that links are busy."""
    there = {link.kind: link for link in theirs}
    return [
        {
            "kind": link.kind,
            **{f"predicted_{key}": getattr(link, key) for key in COMPARED},
            **{f"measured_{key}": getattr(there[link.kind], key) for key in COMPARED},
        }
        for link in ours
        if link.kind in there
    ]


def _side(source: str | Path | Run, role: str, name: str) -> Side:
    return Side.of(source, f"{role} of {name}" if isinstance(source, Run) else "")


def _names(sources: Sequence[str | Path | Run]) -> list[str]:
    """Names of pairs: their predictions' file names where these differ, else with a number."""
    names = ["pair" if isinstance(source, Run) else Path(source).stem for source in sources]
    if len(set(names)) == len(names):
        return names
    return [f"{name} {number}" for number, name in enumerate(names, 1)]


def _spearman() -> Callable[..., Any]:
    """SciPy's rank correlation; raises :class:`InputError` where SciPy is not installed."""
    try:
        from scipy.stats import spearmanr
    except ImportError:
        raise InputError(
            "compare needs SciPy for several pairs, which is not installed: pip install 'athanor[fit]'"
        ) from None
    return spearmanr
