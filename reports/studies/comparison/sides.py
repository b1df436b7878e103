"""The two runs of a comparison: read and checked, refused where they are not of the same plan, their ranks matched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ....hardware.errors import InputError, suggestion
from ....workloads.results.run import Run
from ....workloads.results.totals import Totals
from ....workloads.results.trace import RECOMPUTED, TraceRow, column_of
from ....workloads.schedule.operation import CATEGORIES, Role

Array = NDArray[np.float64]


SAME_TOTALS = ("model", "parameters", "mesh", "placement", "ranks", "nodes", "supernodes")
SAME_BATCH = ("tokens_per_rank", "micro_batches")
SAME_PLAN = ("seq_len", "top_k", "precision", "balancer", "all_to_all", "zero", "recompute", "overlap")
"""Options that decide the schedule; one that is None in one of the runs is the model's own, and cannot be compared."""

NOTED_PLAN = ("router", "drift", "seed")
"""Options that decide loads: where they differ, so may the tokens that experts carry."""


class Observed(BaseModel):
    """A class of ranks that a trace shows: the coordinate of one of them, and how many they are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    coordinate: dict[str, int]
    ranks: int = Field(gt=0)


class What(NamedTuple):
    """What an operation is, by columns of the trace of the same names."""

    kind: str
    phase: str
    category: str
    stream: str
    collective: str
    axes: str
    level: str
    algorithm: str
    label: str
    role: str
    part: str | None
    runs_in: str

    @classmethod
    def of(cls, row: TraceRow) -> What:
        """What a row of a trace says."""
        return cls(*(getattr(row, name) for name in cls._fields))

    def plain(self) -> dict[str, Any]:
        """As plain data, under the names of the trace's columns."""
        return {column_of(name): value for name, value in self._asdict().items()}

    @property
    def short(self) -> str:
        """The name that operations share with those of other layers and micro-batches."""
        return f"again.{self.label}" if self.runs_in == RECOMPUTED else self.label


@dataclass(frozen=True)
class Side:
    """A run that was read and checked: ``name`` is its file, ``what`` tells of each operation what it is."""

    name: str
    run: Run
    classes: Mapping[str, Observed]
    what: Mapping[str, What]

    @classmethod
    def of(cls, source: str | Path | Run, name: str = "") -> Side:
        """Read a file, or take a run as it is; raises :class:`InputError` that names the file and what is wrong in it."""
        run = source if isinstance(source, Run) else Run.load(source)
        name = name or ("run" if isinstance(source, Run) else str(source))
        if not isinstance(run.plan, dict):
            raise InputError(f"{name}: plan must be a table of options")
        try:
            classes = TypeAdapter(dict[str, Observed]).validate_python(run.classes)
        except ValidationError as wrong:
            key = ".".join(map(str, wrong.errors()[0]["loc"]))
            raise InputError(f"{name}: classes.{key}: {wrong.errors()[0]['msg'].lower()}") from None
        return cls(name, run, classes, _checked(name, run, classes))

    @property
    def totals(self) -> Totals:
        """The run's totals."""
        return self.run.totals

    @property
    def steps(self) -> int:
        """Training steps."""
        return len(self.totals.each_step_seconds)

    @cached_property
    def rows(self) -> dict[str, list[TraceRow]]:
        """Rows of the trace by class of ranks."""
        found: dict[str, list[TraceRow]] = {name: [] for name in self.classes}
        for row in self.run.trace:
            found[row.ranks].append(row)
        return found

    def per_step(self, classes: tuple[str, ...], of: Callable[[TraceRow], float]) -> dict[str, Array]:
        """What rows say of each operation, ``[steps]``, as the mean over classes."""
        found: dict[str, Array] = {}
        for row in (row for name in classes for row in self.rows[name]):
            if row.operation not in found:
                found[row.operation] = np.zeros(self.steps)
            found[row.operation][row.step] += of(row) / len(classes)
        return found

    def orders(self) -> dict[tuple[int, str], dict[str, list[str]]]:
        """Names of operations in the order in which the streams of a class did them, by (step, class) and stream."""
        found: dict[tuple[int, str], dict[str, list[str]]] = {}
        for row in self.run.trace:
            found.setdefault((row.step, row.ranks), {}).setdefault(row.stream, []).append(row.operation)
        return found


class Match(NamedTuple):
    """A class of the prediction and the classes of the run that it is compared with; ``label`` is its name and place."""

    predicted: str
    measured: tuple[str, ...]
    label: str


def _checked(name: str, run: Run, classes: Mapping[str, Observed]) -> dict[str, What]:
    """What each operation is; raises :class:`InputError` for the first row of the trace that cannot be read."""
    what: dict[str, What] = {}
    for number, row in enumerate(run.trace):
        if reason := _wrong(row, len(run.totals.each_step_seconds), classes):
            raise InputError(f"{name}: row {number} of the trace {reason}")
        if row.operation not in what:
            what[row.operation] = What.of(row)
    if not what:
        raise InputError(f"{name}: its trace has no rows, so there are no operations to compare")
    return what


def _wrong(row: TraceRow, steps: int, classes: Mapping[str, Observed]) -> str:
    """What is wrong with a row of a trace; empty where nothing is."""
    if not 0 <= row.step < steps:
        return f"is of step {row.step}, must be of one of the {steps} in summary.each_step_seconds"
    if row.ranks not in classes:
        return f'is of class "{row.ranks}", which is not in classes ({", ".join(classes)})'
    if row.category not in CATEGORIES:
        return f"has category {row.category}: no such category{suggestion(str(row.category), CATEGORIES)}"
    if row.role not in [*Role]:
        return f"has role {row.role}: no such role{suggestion(str(row.role), [*Role])}"
    return ""


def require_same_plan(predicted: Side, measured: Side) -> None:
    """Raise :class:`InputError` at the first difference: key, what was found, what it must be."""
    if predicted.totals.measured is not None and measured.totals.measured is None:
        raise InputError(
            f"{predicted.name}: was measured and {measured.name} was simulated; give the prediction first, then the run"
        )
    for key, ours, theirs in _pairs(predicted, measured):
        if ours != theirs:
            raise InputError(
                f"{measured.name}: {key} is {_shown(theirs)}, must be {_shown(ours)} as in {predicted.name}:"
                " only runs of the same plan are compared"
            )
    _require_same_operations(predicted, measured)


def _pairs(predicted: Side, measured: Side) -> Iterator[tuple[str, Any, Any]]:
    """(key, predicted, measured) of everything that must be equal; a mesh's axes count in their order."""
    for key in (*SAME_TOTALS, *SAME_BATCH):
        ours, theirs = getattr(predicted.totals, key), getattr(measured.totals, key)
        yield (key, list(ours.items()), list(theirs.items())) if key == "mesh" else (key, ours, theirs)
    for key in SAME_PLAN:
        ours, theirs = predicted.run.plan.get(key), measured.run.plan.get(key)
        if ours is not None and theirs is not None:
            yield key, ours, theirs


def _require_same_operations(predicted: Side, measured: Side) -> None:
    """Raise :class:`InputError` where a class of ranks did other operations, or operations that are something else.

    Of a shorter run the last step stands for those that it does not have. Stages of a pipeline do other operations each; those
    of which the prediction observes no rank are not compared.
    """
    ours, theirs = predicted.orders(), measured.orders()
    example = {each.coordinate.get("pp", 0): name for name, each in reversed(list(predicted.classes.items()))}
    for step in range(max(predicted.steps, measured.steps)):
        for side, orders in ((predicted, ours), (measured, theirs)):
            for name, observed in side.classes.items():
                stage = observed.coordinate.get("pp", 0)
                if stage not in example:
                    continue
                wanted = ours.get((min(step, predicted.steps - 1), example[stage]), {})
                found = orders.get((min(step, side.steps - 1), name), {})
                _require_same_order(side.name, found, predicted.name, wanted, f"step {step} ({name})")
    for operation, what in measured.what.items():
        for column, value, must in zip(
            map(column_of, What._fields), what, predicted.what.get(operation, what), strict=True
        ):
            if value != must and column != "algorithm":  # another machine may need another one
                raise InputError(
                    f"{measured.name}: {operation} has {column} {value or 'none'}, must have {must or 'none'}"
                    f" as in {predicted.name}"
                )


def _require_same_order(
    name: str, found: dict[str, list[str]], other: str, wanted: dict[str, list[str]], where: str
) -> None:
    """Raise :class:`InputError` at the first operation of a stream that is not the one of the other file."""
    for stream in dict.fromkeys((*wanted, *found)):
        theirs, ours = found.get(stream, []), wanted.get(stream, [])
        if theirs != ours:
            pairs = zip_longest(theirs, ours, fillvalue="missing")
            number, here, must = next((number, a, b) for number, (a, b) in enumerate(pairs) if a != b)
            raise InputError(
                f"{name}: operation {number} of stream {stream} in {where} is {here}, must be {must} as in {other}"
            )


def matches(predicted: Side, measured: Side) -> tuple[list[Match], list[str]]:
    """Which ranks are compared with which, and notes on those that have no counterpart.

    A class that stands for several ranks is compared with all ranks of the run, one of a single rank with that rank.
    Raises :class:`InputError` where no rank was observed on both sides.
    """
    found: dict[str, Match] = {}
    lost: list[str] = []
    everywhere = [name for name, each in measured.classes.items() if each.ranks > 1]
    for name, observed in predicted.classes.items():
        at = place(observed.coordinate)
        if observed.ranks > 1:
            found[at] = Match(name, tuple(everywhere or measured.classes), f"{name} ranks")
            continue
        same = [other for other, each in measured.classes.items() if each.coordinate == observed.coordinate]
        if same or everywhere:
            found[at] = Match(name, tuple(same[:1] or everywhere), f"{name} ({at})" if at else name)
        else:
            lost.append(f"{name} ({at})")
    if not found:
        raise InputError(f"{measured.name}: observes none of the ranks of {predicted.name}: {', '.join(lost)}")
    notes = [f"{each} of {predicted.name} is not among the ranks of {measured.name}" for each in lost]
    seen = sum(each.ranks for each in measured.classes.values())
    if any(predicted.classes[each.predicted].ranks > seen for each in found.values()):
        notes.append(
            f"{measured.name} observes {seen:,} of {measured.totals.ranks:,} ranks; times are means over these"
        )
    return list(found.values()), notes


def differences(predicted: Side, measured: Side) -> list[str]:
    """What may differ between a prediction and its run, and does: to know before judging the errors."""
    ours, theirs = predicted.totals, measured.totals
    notes = []
    if ours.machine != theirs.machine:
        notes.append(f"predicted for {ours.machine}, measured on {theirs.machine}")
    if theirs.measured is None:
        notes.append(f"{measured.name} was simulated, not measured: this compares two predictions")
    elif ours.measured is not None:
        notes.append(f"{predicted.name} was measured as well: this compares two runs")
    if predicted.steps != measured.steps:
        notes.append(f"{_steps(predicted)} predicted, {_steps(measured)} measured: times are means over each")
    for key in (*SAME_PLAN, *NOTED_PLAN):
        here, there = predicted.run.plan.get(key), measured.run.plan.get(key)
        if here != there:
            notes.append(f"{key} is {_shown(here)} in {predicted.name} and {_shown(there)} in {measured.name}")
    warnings = [f"{side.name}: {warning}" for side in (predicted, measured) for warning in side.totals.warnings]
    return [*notes, *warnings]


def place(coordinate: Mapping[str, int]) -> str:
    """A coordinate as text: ``ep=0,dp=1``."""
    return ",".join(f"{axis}={at}" for axis, at in coordinate.items())


def _shown(value: Any) -> str:
    """A value as a user would write it: ``ep=2,dp=2`` for a mesh."""
    if value is None:
        return "the model's own"
    if isinstance(value, dict):
        value = list(value.items())
    return ",".join(f"{key}={each}" for key, each in value) if isinstance(value, list) else str(value)


def _steps(side: Side) -> str:
    return f"{side.steps} step{'s' if side.steps > 1 else ''}"
