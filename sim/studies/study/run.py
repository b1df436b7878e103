"""study(): many points over keys of machine, model, plan and campaign, as a table with their exact inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....hardware.errors import InputError
from ....hardware.kept_points import Points
from ....hardware.machine import Machine
from ....workloads.mesh.mesh_text import mesh_text
from ....workloads.model.model import Model
from ...workers import Workers
from ..points import crew_of, points
from .designs import Point, points_of, shares_of
from .search import search
from .sensitivity import sensitivity
from .study_file import LABEL, StudyFile
from .trials import evaluate, forget, name_of

if TYPE_CHECKING:
    import pandas as pd

Outcome = dict[str, Any]

FIRST = ("point", LABEL, "command", "machine", "model")


@dataclass
class StudyResult:
    """The points of a study, and what became of those that are done.

    ``keys`` has each point's key by its number, ``outcomes`` what is known by key. ``newest`` is how many are done.
    """

    file: StudyFile
    points: list[Point]
    keys: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Points that are done."""
        return sum(key in self.outcomes for key in self.keys)

    @property
    def complete(self) -> bool:
        """Whether all points are done."""
        return self.done == len(self.points)

    def counts(self) -> dict[str, int]:
        """Points by status, ``ok`` first."""
        found: dict[str, int] = {"ok": 0}
        for key in self.keys:
            if key in self.outcomes:
                status = self.outcomes[key]["status"]
                found[status] = found.get(status, 0) + 1
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each point that is done, in the order of the study: inputs, status and figures."""
        varied = [key for key in self.file.varied if key not in ("machine", "model")]
        varied += [key for key in ("scale.nodes", "plan.mesh") if self.file.scale and key not in varied]
        label = any(LABEL in row for row in self.file.rows)
        least = self._smallest() if self.file.scale else {}
        for point, key in zip(self.points, self.keys, strict=True):
            if key not in self.outcomes:
                continue
            outcome, trial = self.outcomes[key], point.trial
            row: dict[str, Any] = {"point": point.number, **({LABEL: point.row.get(LABEL)} if label else {})}
            row |= {"command": trial.command, "machine": name_of(trial.machine), "model": name_of(trial.model)}
            row |= {name: _cell(point.row.get(name)) for name in varied}
            row |= {"status": outcome["status"], "reason": outcome["reason"]}
            row |= {name: value for name, value in outcome["figures"].items() if name not in row}
            if point.series in least and outcome["figures"]:
                row |= _gain(least[point.series], row)
            yield row | {"inputs": json.dumps(trial.inputs(), default=_cell)}

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame; columns that would be numbers and texts at once are texts."""
        import pandas as pd

        rows = list(self.rows())
        columns = dict.fromkeys(name for row in rows for name in row if name != "inputs")
        table: dict[str, Any] = {}
        for name in [*columns, *(["inputs"] if rows else [])]:
            table[name] = _column([row.get(name) for row in rows])
        return pd.DataFrame(table)

    @cached_property
    def sensitivity(self) -> list[dict[str, Any]]:
        """How much the figure of a study by Sobol or Morris depends on each key, for each combination of list and grid."""
        sample = self.file.sample
        if sample is None or sample.method not in ("sobol", "morris") or not self.complete:
            return []
        shares = shares_of(sample)
        values = [self.outcomes[key]["figures"].get(sample.of, np.nan) for key in self.keys]
        found = []
        for number, start in enumerate(range(0, len(values), len(shares))):
            rows = sensitivity(sample, shares, values[start : start + len(shares)])
            named = {key: _cell(value) for key, value in self.points[start].row.items() if key not in sample.over}
            found += [{"combination": number, **named, **row} for row in rows]
        return found

    def best(self) -> dict[str, Any] | None:
        """The row with the least (or most) of what the study looks at; None where no point has it."""
        goal, sample = self.file.objective, self.file.sample
        sign = -1.0 if sample and sample.goal == "maximise" else 1.0
        rows = [row for row in self.rows() if isinstance(row.get(goal), int | float)]
        return min(rows, key=lambda row: sign * row[goal], default=None)

    def _smallest(self) -> dict[int, dict[str, Any]]:
        """The figures of the smallest node count of each series that is done."""
        found: dict[int, dict[str, Any]] = {}
        for point, key in zip(self.points, self.keys, strict=True):
            figures = self.outcomes.get(key, {}).get("figures")
            if figures and point.series not in found:
                found[point.series] = {**figures, "scale.nodes": point.row["scale.nodes"]}
        return found


def _gain(smallest: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float]:
    """Speed-up over the smallest node count of a series, in tokens a second, and its share of the ideal."""
    speedup = row["tokens_per_second"] / smallest["tokens_per_second"]
    return {"speedup": speedup, "efficiency": speedup / (row["scale.nodes"] / smallest["scale.nodes"])}


def run_study(
    file: StudyFile,
    crew: Workers,
    known: Mapping[str, Outcome] | None = None,
    on_point: Callable[[str, Outcome, StudyResult], None] | None = None,
    part: tuple[int, int] = (1, 1),
) -> StudyResult:
    """The points of a study, as workers do them; ``on_point`` hears of each with its key, the known ones first.

    ``part`` is which of how many shares of the points to do: 2 of 3 does every third, from the second on. What ``known`` has of
    the others is in the result as well.
    """
    forget()
    earlier = {key: found for key, found in (known or {}).items() if _is_outcome(found)}
    number, shares = part
    sample = file.sample

    def work(result: StudyResult, fresh: Sequence[Point]) -> None:
        tasks = {}
        for point in fresh:
            key = point.trial.key() if not point.refused else f"refused-{point.number}"
            result.points.append(point)
            result.keys.append(key)
            if point.refused:
                result.outcomes[key] = {"status": "refused", "reason": point.refused, "figures": {}}
            elif point.number % shares == number - 1:
                tasks[key] = point.trial
            elif key in earlier:
                result.outcomes[key] = earlier[key]
        for key, found in points(evaluate, tasks, earlier, crew):
            result.outcomes[key] = found
            if on_point:
                on_point(key, found, result)

    if sample is None or sample.method != "search":
        planned = points_of(file)
        file.require_sources([point.trial for point in planned])
        result = StudyResult(file, [])
        work(result, planned)
        return result
    if shares > 1:
        raise InputError(
            f"{file.where}: sample.method search: asks for points by what earlier ones came to; no array can share it"
        )
    if file.scale:
        raise InputError(f"{file.where}: sample.method search: does not go with scale")
    file.require_sources([file.trial(row) for row in file.designed()])
    result = StudyResult(file, [])
    for series, row in enumerate(file.designed()):

        def evaluated(
            rows: Sequence[dict[str, Any]], row: dict[str, Any] = row, series: int = series
        ) -> list[float | None]:
            start = len(result.points)
            here = [{**row, **each} for each in rows]
            work(result, [Point(start + at, each, file.trial(each), series) for at, each in enumerate(here)])
            found = [result.outcomes[key]["figures"].get(sample.of) for key in result.keys[start:]]
            return [float(value) if isinstance(value, int | float) else None for value in found]

        search(sample, evaluated)
    return result


def study(
    source: str | Path | Mapping[str, Any] | pd.DataFrame,
    *,
    machine: str | Path | Machine | None = None,
    model: str | Path | Model | None = None,
    command: str | None = None,
    out: str | Path | None = None,
    jobs: int | None = 1,
    workers: Workers | None = None,
) -> pd.DataFrame:
    """Simulate the points of a study, and return them as a data frame: a row for each point, in its order.

    ``source`` is a study of the catalogue, the path of a study file, a table with the keys of one, or a data frame whose columns
    are keys (``machine``, ``machine.fabric.taper``, ``plan.mesh``, ...) and whose rows are points. ``machine``, ``model`` and
    ``command`` go before what it says. Points that fail are rows with a ``status`` and a ``reason``. With ``out``, finished
    points are kept in that folder, and a study that was interrupted goes on there. ``jobs`` processes work on points (None: one
    a core), or ``workers`` that are there already; rows do not depend on how many.

    Raises :class:`InputError` for keys and values that no point can have.
    """
    file = _file(source, command)
    for key, value in (("machine", machine), ("model", model)):
        if value is not None:
            file = file.with_values(key, [str(value) if isinstance(value, Path) else value])
    kept = Points(Path(out)) if out is not None else None
    from ....hardware.cores import cores

    with crew_of(workers, jobs or cores()) as crew:
        result = run_study(
            file,
            crew,
            known=kept.known if kept else None,
            on_point=(lambda key, found, _: keep(kept, key, found)) if kept else None,
        )
    return result.frame()


def keep(kept: Points, key: str, found: Outcome) -> None:
    """Keep a finished point, unless it failed for a reason that may be gone the next time."""
    if found["status"] != "failed":
        kept.keep(key, found)


def _file(source: str | Path | Mapping[str, Any] | pd.DataFrame, command: str | None) -> StudyFile:
    more = {"command": command} if command else {}
    if isinstance(source, str | Path):
        file = StudyFile.read(source)
        return replace(file, command=command) if command else file
    if isinstance(source, Mapping):
        return StudyFile.of({**source, **more})
    records = [{str(key): value for key, value in row.items() if _given(value)} for row in source.to_dict("records")]
    return StudyFile.of({"list": records, **more})


def _given(value: Any) -> bool:
    """Whether a cell of a data frame says something."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def _is_outcome(found: Any) -> bool:
    return isinstance(found, Mapping) and {"status", "reason", "figures"} <= set(found)


def _cell(value: Any) -> Any:
    """A value as a cell: sizes of a mesh as their text, machines and models by their names."""
    if isinstance(value, Mapping):
        return mesh_text(value)
    return value.name if isinstance(value, Machine | Model) else value


def _column(values: list[Any]) -> list[Any]:
    """The cells of a column, of one type: numbers, truths or texts."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds or kinds <= {int, float} or len(kinds) == 1:
        return values
    return [None if value is None else str(value) for value in values]
