"""A training's steps, predicted one by one: its recorded loads replayed by the simulator, beside the measured seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ...hardware.records import parsed_json
from ...sim.simulate import simulate
from ...workloads.model.model import Model
from ...workloads.results.run import Run
from ...workloads.results.training_run import FORMAT, TrainingRun
from .comparison.rows import ComparisonRow, Errors, row_of

if TYPE_CHECKING:
    import pandas as pd

WARM_UP = 1
"""Steps of a job that count for no error: the first makes connections and touches memory, which no schedule has."""

SAME = ("model", "mesh", "ranks", "tokens_per_rank")
"""What a prediction and a training have in common."""


@dataclass(frozen=True)
class PredictedTraining:
    """The steps of one job, from number ``first`` on: seconds as predicted, and as measured, and those that drew batches.

    ``phases`` are the predicted exposed seconds of a step; ``fitted`` names the constants of the machine that were measured.
    """

    machine: str
    depth: str
    fitted: Sequence[str]
    first: int
    predicted: Sequence[float]
    measured: Sequence[float]
    drawing: Sequence[float]
    phases: Mapping[str, float]
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, run: Run, training: Mapping[str, Any], notes: Sequence[str] = ()) -> PredictedTraining:
        """A prediction beside the summary of a training; raises :class:`InputError` where they are not of the same steps."""
        totals = run.totals
        for key in SAME:
            ours, theirs = getattr(totals, key), training.get(key)
            if ours != theirs:
                raise InputError(f"the training's {key} is {theirs}, must be {ours} as in the prediction")
        steps, first = len(training["step_seconds"]), training["first_step"]
        predicted = totals.each_step_seconds
        if len(predicted) == 1:  # of a dense model one step stands for all
            predicted = predicted * steps
        if len(predicted) != steps:
            raise InputError(
                f"{len(predicted)} steps were predicted, and the training has {steps}: simulate --steps {steps}"
            )
        return cls(
            totals.machine,
            totals.network.depth,
            totals.fitted_constants,
            first,
            predicted[first:],
            training["step_seconds"][first:],
            training["data_seconds"][first:],
            totals.phases,
            notes,
        )

    @property
    def counted(self) -> int:
        """Steps of the job that no error counts: all but those have warmed up."""
        return WARM_UP if len(self.measured) > WARM_UP else 0

    @cached_property
    def rows(self) -> list[ComparisonRow]:
        """Each step, with its number in the training."""
        pairs = zip(self.predicted, self.measured, strict=True)
        return [ComparisonRow(f"step {self.first + at}", *pair) for at, pair in enumerate(pairs, 1)]

    @cached_property
    def errors(self) -> Errors:
        """Those of single steps, mean and worst."""
        return Errors.of((row.name, row) for row in self.rows[self.counted :])

    @cached_property
    def step(self) -> ComparisonRow:
        """The mean step."""
        import numpy as np

        return row_of("step", *(np.array(each[self.counted :]) for each in (self.predicted, self.measured)))

    def plain(self) -> dict[str, Any]:
        """As plain data: ``docs/howto/train.md`` says what each key means."""
        return {
            "machine": self.machine,
            "depth": self.depth,
            "fitted_constants": list(self.fitted),
            "first_step": self.first,
            "left_out": self.counted,
            "step_seconds": list(self.predicted),
            "relative_errors": [row.relative_error for row in self.rows],
            "step": self.step.plain("seconds"),
            "errors": self.errors.plain(),
            "phases": dict(self.phases),
            "data_share": sum(self.drawing[self.counted :]) / max(sum(self.measured[self.counted :]), 1e-300),
            "notes": list(self.notes),
        }

    def to_frame(self) -> pd.DataFrame:
        """A row a step."""
        import pandas as pd

        return pd.DataFrame(
            {
                "step": range(self.first, self.first + len(self.rows)),
                "predicted_seconds": self.predicted,
                "measured_seconds": self.measured,
                "data_seconds": self.drawing,
                "relative_error": [row.relative_error for row in self.rows],
            }
        )


def predicted_training(machine: str | Path | Machine, model: str | Path | Model, run: TrainingRun) -> PredictedTraining:
    """Simulate the steps of a training with the loads that it has recorded, and put both beside each other."""
    plan, steps = dict(run.told["plan"]), len(run.loss)
    with tempfile.TemporaryDirectory() as folder:
        if run.experts:
            loads = Path(folder) / "loads.csv"
            loads.write_text(run.loads_csv(), encoding="ascii")
            plan |= {"router": f"trace:{loads}", "steps": steps}
        else:
            plan |= {"steps": 1}
        found = simulate(machine, model, allow_overcommit=True, **plan)
    return PredictedTraining.of(found, run.summary(), [each for each in found.totals.warnings if "trace" not in each])


def read_training(path: str | Path) -> dict[str, Any] | None:
    """The summary of a training that a file holds; None where it holds something else, which another reader judges."""
    try:
        plain = parsed_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return plain if isinstance(plain, dict) and plain.get("format") == FORMAT else None
