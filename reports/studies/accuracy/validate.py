"""Every row of a table predicted, judged by source and in all, with the null model on the same rows beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ....hardware.errors import AthanorError, InputError
from ....hardware.machine import Machine
from ....hardware.version import key
from ....sim.studies.points import points
from ....sim.workers import on_cores
from ....workloads.plan.setting import Setting
from ...published.run import PublishedRun
from .cases import LeftOut
from .judgement import Judged, orders, statistics
from .metrics import Prediction, predict, simulated
from .null_model import guess_of, null_predictions

FAR = 1.6
"""A prediction that is off by more than this factor is named, with what is known of the reason."""


@dataclass(frozen=True)
class AccuracyOutcome:
    """A row, and its prediction or the reason why there is none."""

    row: PublishedRun
    prediction: Prediction | None
    reason: str = ""

    @property
    def error(self) -> float | None:
        """Relative error of the prediction."""
        return None if self.prediction is None else self.prediction.value / self.row.value - 1

    @property
    def far(self) -> bool:
        """Whether prediction and measurement differ by more than a factor of :data:`FAR`."""
        return self.error is not None and not 1 / FAR <= 1 + self.error <= FAR

    @cached_property
    def fitted(self) -> bool | None:
        """Whether constants that the prediction uses were fitted to this run; None where there is no prediction.

        What a source computed by formula tells how it counts, and that was read off it.
        """
        return None if self.prediction is None else self.row.fitted or self.row.is_formula

    @property
    def covered(self) -> bool | None:
        """Whether the measurement lies in the prediction's interval; None where there is none."""
        made = self.prediction
        if made is None or made.low is None or made.high is None:
            return None
        return made.low <= self.row.value <= made.high

    @property
    def plans(self) -> tuple[object, ...] | None:
        """What a row has in common with those among which a user would choose."""
        setting = self.prediction.setting if self.prediction else None
        if setting is None:
            return None
        row, plan = self.row, setting.plan
        where = (row.publication, row.machine, repr(sorted(row.set.items())), setting.mesh.ranks)
        return (*where, row.model, repr(sorted(row.shape.items())), plan.precision, setting.batch.seq_len, row.batch)


@dataclass
class Accuracy:
    """The outcomes of a table, and what they come to."""

    outcomes: list[AccuracyOutcome] = field(default_factory=list)

    @property
    def predicted(self) -> list[AccuracyOutcome]:
        """The rows that were predicted."""
        return [each for each in self.outcomes if each.prediction is not None]

    @cached_property
    def nulls(self) -> dict[str, float]:
        """Relative errors of the null model, by row."""
        steps = [
            (each, each.prediction.setting) for each in self.predicted if each.prediction and each.prediction.setting
        ]
        guesses = [
            guess_of(setting, accelerator_of(setting.machine), each.prediction.measured_seconds or 0.0)
            for each, setting in steps
            if each.prediction
        ]
        return {
            each.row.id: _in_unit(each, seconds) / each.row.value - 1
            for (each, _), seconds in zip(steps, null_predictions(guesses), strict=True)
            if seconds is not None
        }

    def judged(self, outcomes: Sequence[AccuracyOutcome]) -> dict[str, Any]:
        """Statistics of some rows."""
        rows = [self._judged(each) for each in outcomes if each.prediction is not None]
        return statistics(rows, len(outcomes) - len(rows))

    def _judged(self, each: AccuracyOutcome) -> Judged:
        assert each.prediction is not None
        assert each.error is not None
        made = each.prediction
        null = self.nulls.get(each.row.id)
        return Judged(
            each.error,
            null,
            each.plans,
            made.seconds,
            made.measured_seconds,
            each.covered,
            bool(each.fitted),
            each.row.id,
        )

    @property
    def orders(self) -> list[dict[str, Any]]:
        """Plans of one model, batch and machine among which a user would choose: whether they are in their true order."""
        rows = {each.row.id: each.row for each in self.measured}
        found = []
        for group in orders([self._judged(each) for each in self.measured if each.prediction is not None]):
            run = rows[group["best"]]
            found.append({"source": run.source, "model": run.model, "batch": run.batch, **group})
        return found

    @property
    def sources(self) -> dict[str, list[AccuracyOutcome]]:
        """Outcomes by source, in the order of the table."""
        found: dict[str, list[AccuracyOutcome]] = {}
        for each in self.listed:
            found.setdefault(each.row.source, []).append(each)
        return found

    @property
    def listed(self) -> list[AccuracyOutcome]:
        """Outcomes of the table's own rows, without those for the memory in their notes."""
        return [each for each in self.outcomes if not each.row.beside]

    @property
    def measured(self) -> list[AccuracyOutcome]:
        """The listed ones without what their source computed by formula, which is no measurement."""
        return [each for each in self.listed if not each.row.is_formula]

    @property
    def memory(self) -> dict[str, list[AccuracyOutcome]]:
        """Outcomes about memory: measured, and computed by the source."""
        found = [each for each in self.outcomes if each.row.is_memory]
        return {
            "measured": [each for each in found if not each.row.is_formula],
            "formula": [each for each in found if each.row.is_formula],
        }

    def plain(self) -> dict[str, Any]:
        """As plain data; ``docs/formats/accuracy.md`` defines each key."""
        return {
            "rows": [self._row(each) for each in self.outcomes],
            "sources": [{"source": name, **self.judged(rows)} for name, rows in self.sources.items()],
            "overall": self.judged(self.measured),
            "orders": self.orders,
            "memory": {kind: self.judged(rows) for kind, rows in self.memory.items()},
            "far": [self._far(each) for each in self.outcomes if each.far],
        }

    def _far(self, each: AccuracyOutcome) -> dict[str, Any]:
        return {
            "id": each.row.id,
            "source": each.row.source,
            "metric": each.row.metric,
            "relative_error": each.error,
            "explained": each.row.explained or None,
        }

    def _row(self, each: AccuracyOutcome) -> dict[str, Any]:
        made = each.prediction
        return {
            "id": each.row.id,
            "source": each.row.source,
            "publication": each.row.publication,
            "metric": each.row.metric,
            "predicted": made.value if made else None,
            "low": made.low if made else None,
            "high": made.high if made else None,
            "measured": each.row.value,
            "unit": each.row.unit,
            "relative_error": each.error,
            "null_relative_error": self.nulls.get(each.row.id),
            "fitted": each.fitted,
            "assumed": list(made.assumed) if made else [],
            "reason": each.reason or None,
        }


def accelerator_of(machine: Machine) -> str:
    """The kind of accelerator by which runs are compared: the machine's, or the machine itself where it has none."""
    return machine.core_group.accelerator or machine.name


def _in_unit(each: AccuracyOutcome, seconds: float) -> float:
    """Seconds of a step in the unit of the row."""
    made = each.prediction
    assert made is not None
    assert made.seconds is not None
    assert made.measured_seconds is not None
    rising = (made.value > each.row.value) == (made.seconds > made.measured_seconds)
    factor = seconds / made.seconds
    return made.value * (factor if rising else 1 / factor)


def validate(
    rows: Sequence[PublishedRun],
    on_outcome: Callable[[AccuracyOutcome], None] = lambda outcome: None,
    change: Callable[[Machine], Machine] = lambda machine: machine,
    *,
    known: Mapping[str, dict[str, Any]] | None = None,
    keep: Callable[[str, dict[str, Any]], None] = lambda key, step: None,
    jobs: int = 1,
) -> Accuracy:
    """Predict every row; raises :class:`InputError` where none can be predicted, with the first reason.

    ``on_outcome`` is called with each outcome as it comes, so that an interrupted run keeps what it has; ``change`` may change
    what is simulated for a row. Steps that rows share are simulated once, by ``jobs`` processes; ``keep`` hears of each with its
    key, and those whose key is in ``known`` are taken from there.
    """
    outcomes: dict[int, AccuracyOutcome] = {}
    asked: dict[str, Setting] = {}
    steps: dict[str, dict[str, Any]] = {}
    waiting: dict[int, set[str]] = {}

    def ask(setting: Setting) -> dict[str, Any]:
        asked[name := _key(setting)] = setting
        waiting[number].add(name)
        return UNKNOWN

    def look_up(setting: Setting) -> dict[str, Any]:
        step = steps[_key(setting)]
        if "refused" in step:
            raise InputError(step["refused"])
        return step

    def tell(number: int, outcome: AccuracyOutcome) -> None:
        outcomes[number] = outcome
        del waiting[number]
        on_outcome(outcome)

    for number, row in enumerate(rows):
        waiting[number] = set()
        outcome = _outcome(row, ask, change)
        if not waiting[number]:
            tell(number, outcome)
    with on_cores(jobs) as crew:
        for name, step in points(_step, asked, known, crew):
            keep(name, step)
            steps[name] = step
            for number in [number for number, names in waiting.items() if names <= steps.keys()]:
                tell(number, _outcome(rows[number], look_up, change))
    found = Accuracy([outcomes[number] for number in range(len(rows))])
    if not found.predicted:
        first = found.outcomes[0]
        raise InputError(f"none of the {len(rows)} rows can be predicted; {first.row.id}: {first.reason}")
    return found


def _outcome(
    row: PublishedRun, run: Callable[[Setting], dict[str, Any]], change: Callable[[Machine], Machine]
) -> AccuracyOutcome:
    try:
        return AccuracyOutcome(row, predict(row, run, change))
    except LeftOut as reason:
        return AccuracyOutcome(row, None, str(reason))


UNKNOWN: dict[str, Any] = {"step_seconds": 1.0, "flops_per_step": 1.0, "phases": {"forward": 1.0, "backward": 1.0}}
"""What stands for a step while rows are asked which steps they need: predictions are then made once more."""


def _step(setting: Setting) -> dict[str, Any]:
    """What predictions read of a step, or why it was refused."""
    try:
        found = simulated(setting)
    except AthanorError as wrong:
        return {"refused": str(wrong)}
    return {key: found[key] for key in (*UNKNOWN, "step_seconds_low", "step_seconds_high") if key in found}


def _key(setting: Setting) -> str:
    """What decides a step."""
    machine = setting.machine.model_copy(update={"sources": {}})
    return key(machine.model_dump(), setting.model.model_dump(), setting.plan.to_plain())
