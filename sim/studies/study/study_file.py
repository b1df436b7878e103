"""Study files: a run file, and over it what is varied, how points are drawn, and what is drawn of them.

``docs/formats/study.md`` has every key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from ....hardware.errors import InputError, nearest, suggestion
from ....hardware.machine import Machine
from ....hardware.records import find, put, read_toml
from ....workloads.model.model import Model
from ....workloads.plan.plan import Plan
from ....workloads.plan.run_file import RunFile, beside, dotted
from .factors import Choices, Factor, factor, grid_values, is_range
from .trials import COMMANDS, OBJECTIVES, Trial, machine_of, model_of, own_keys, read_value

CATALOGUE = Path(__file__).parent / "catalogue"

OWN = ("command", "title", "grid", "list", "sample", "scale", "plots", "table", "collective", "simulate")
"""Keys of a study file that a run file does not have."""

METHODS = ("random", "latin-hypercube", "sobol", "morris", "search")

SAMPLE = ("method", "points", "seed", "of", "goal", "batch", "over")

PLOT = ("x", "y", "series", "facets", "kind", "log", "ideal", "title", "name")

LABEL = "name"
"""Key of a point in a list that only names it."""

MOST_POINTS = 1_000_000

MOST_SERIES = 8
"""Series of a plot that nobody has asked for."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Points that are drawn: by which method, how many, over what; ``of`` is the figure that a search or a sensitivity is of."""

    method: str
    points: int
    over: Mapping[str, Factor]
    seed: int = 0
    of: str = ""
    goal: str = "minimise"
    batch: int = 8


@dataclass(frozen=True)
class PlotRequest:
    """A plot of a study's points: which column on which axis, and by which columns they are told apart.

    ``ideal`` draws what each series would be if its first point's value a unit of x stayed (``proportional``), or its value
    (``constant``). ``log`` names the axes that are logarithmic.
    """

    x: str
    y: str
    series: str = ""
    facets: str = ""
    kind: str = "line"
    log: str = ""
    ideal: str = ""
    title: str = ""
    name: str = ""


@dataclass(frozen=True)
class StudyFile:
    """What a study is of: a base (a run file's keys), what is varied over it, and what is shown.

    Points are all combinations of ``rows`` (a list), ``grid`` and ``sample``; ``scale`` puts each on many node counts.
    """

    base: RunFile
    command: str = "simulate"
    title: str = ""
    rows: tuple[Row, ...] = ()
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    sample: Sample | None = None
    scale: Mapping[str, Any] = field(default_factory=dict)
    plots: tuple[PlotRequest, ...] = ()
    table: tuple[str, ...] = ()

    @classmethod
    def read(cls, name_or_path: str | Path) -> StudyFile:
        """A study of the catalogue, or of a file; raises :class:`InputError` with the key and what is allowed."""
        path = find("study", CATALOGUE, str(name_or_path))
        return cls.of(read_toml(path), path)

    @classmethod
    def of(cls, table: Mapping[str, Any], path: Path = Path("study")) -> StudyFile:
        """A study from the table of a file that is, or might be, at ``path``."""
        where = str(path)
        mine = {key: value for key, value in table.items() if key in OWN}
        command = mine.get("command", "simulate")
        if command not in COMMANDS:
            raise InputError(f"{where}: command is {command}: must be one of these{suggestion(str(command), COMMANDS)}")
        rest = {key: value for key, value in table.items() if key not in OWN}
        for key in ("collective", "simulate"):
            if key in mine and key != command:
                raise InputError(f"{where}: {key}: the study's command is {command}")
        scale = dict(_table(where, "scale", mine.get("scale", {})))
        base = RunFile.of(rest, path)
        own = mine.get(command, base.commands.get(command, {}))
        base = replace(base, commands={command: {**own}})
        for key in own:
            _known(f"{where}: {command}.{key}", key, own_keys(command))
        made = cls(
            base,
            command,
            _text(where, "title", mine),
            tuple(_rows(where, mine.get("list", []), path)),
            {key: grid_values(f"{where}: grid.{key}", value) for key, value in _leaves(where, "grid", mine)},
            _sample(where, mine["sample"], command) if "sample" in mine else None,
            scale,
            tuple(_plots(where, mine.get("plots", []))),
            tuple(_texts(where, "table", mine.get("table", []))),
        )
        return made.checked(path)

    @property
    def where(self) -> str:
        """What messages call the study."""
        return str(self.base.path)

    @property
    def varied(self) -> tuple[str, ...]:
        """The keys that points differ in, in their order; the label of a list's points is none of them."""
        keys = dict.fromkeys(key for row in self.rows for key in row if key != LABEL)
        return tuple(dict.fromkeys([*keys, *self.grid, *(self.sample.over if self.sample else ())]))

    @property
    def name(self) -> str:
        """The study's title, or its file's name."""
        return self.title or f"Study {self.base.path.stem}"

    @property
    def objective(self) -> str:
        """The figure that the study looks at where nothing else is named."""
        return self.sample.of if self.sample and self.sample.of else OBJECTIVES[self.command]

    def checked(self, path: Path) -> StudyFile:
        """The same study with every value in its type; raises :class:`InputError` for keys and values that cannot be."""
        seen: dict[str, str] = {}
        places = [*(("list", key) for row in self.rows for key in row), *(("grid", key) for key in self.grid)]
        places += [("sample.over", key) for key in (self.sample.over if self.sample else {})]
        for place, key in places:
            if key == LABEL and place == "list":
                continue
            if seen.setdefault(key, place) != place:
                raise InputError(f"{self.where}: {key} stands in {seen[key]} and in {place}; leave one of them out")
            self._require_key(f"{self.where}: {place}.{key}", key)

        def read(place: str, key: str, value: Any) -> Any:
            part, _, name = key.partition(".")
            if key in ("machine", "model"):
                if not isinstance(value, str | Machine | Model):
                    raise InputError(f"{self.where}: {place}.{key} is {value}: must be a name or a file")
                return beside(path, value) if isinstance(value, str) else value
            return read_value(part, name, value, f"{self.where}: {place}.{key}") if name else value

        rows = tuple({key: read("list", key, value) for key, value in row.items()} for row in self.rows)
        grid = {key: tuple(read("grid", key, each) for each in values) for key, values in self.grid.items()}
        sample = self.sample
        if sample:
            over = dict[str, Factor]()
            for key, each in sample.over.items():
                if isinstance(each, Choices):
                    over[key] = replace(each, values=tuple(read("sample.over", key, value) for value in each.values))
                else:
                    read("sample.over", key, each.at(0.5))
                    over[key] = each
            sample = replace(sample, over=over)
        return replace(self, rows=rows, grid=grid, sample=sample)

    def _require_key(self, where: str, key: str) -> None:
        part, dot, name = key.partition(".")
        if key in ("machine", "model"):
            return
        if dot and part in ("machine", "model"):
            return
        parts = {"plan": tuple(Plan.options()), self.command: own_keys(self.command)}
        if not dot or part not in parts:
            homes = ("machine", "model", *(f"{each}.KEY" for each in ("machine", "model", *parts)))
            hint = next((f"; did you mean {each}.{key}?" for each, known in parts.items() if key in known), "")
            raise InputError(f"{where}: no such key of a study ({', '.join(homes)}){hint}")
        _known(where, name, parts[part])

    def with_values(self, key: str, values: Sequence[Any]) -> StudyFile:
        """The study with other machines or models (``key``): one in the base's place, several as a grid."""
        rows = tuple({name: value for name, value in row.items() if name != key} for row in self.rows)
        grid = {name: each for name, each in self.grid.items() if name != key}
        if len(values) == 1:
            return replace(self, base=replace(self.base, **{key: values[0]}), rows=rows, grid=grid)
        return replace(self, rows=rows, grid={key: tuple(values), **grid})

    def plots_of(self, rows: Sequence[Row]) -> tuple[PlotRequest, ...]:
        """The plots that the study asks for; where it asks for none, its figure over the first key that numbers stand for."""
        if self.plots:
            return self.plots
        label = LABEL if any(LABEL in row for row in self.rows) else ""
        apart = [key for key in self.varied if len({str(row.get(key)) for row in rows}) > 1]
        if self.scale:
            series = label or next((key for key in apart if key not in ("plan.mesh", "model.experts")), "")
            more = {"x": "scale.nodes", "series": series, "log": "xy"}
            return (
                PlotRequest(y="tokens_per_second", ideal="proportional", name="scaling", **more),
                PlotRequest(y="efficiency", ideal="constant", name="efficiency", **{**more, "log": "x"}),
            )
        numbers = [key for key in apart if all(isinstance(row.get(key), int | float | None) for row in rows)]
        x = numbers[0] if numbers else label or next(iter(apart), "")
        if not x:
            return ()
        series = next((key for key in [label, *apart] if key and key != x), "") if numbers else ""
        if len({str(row.get(series)) for row in rows}) > MOST_SERIES:
            series = ""
        kind = ("points" if self.sample else "line") if numbers else "bars"
        return (PlotRequest(x=x, y=self.objective, series=series, kind=kind, name="points"),)

    def designed(self) -> Iterator[Row]:
        """What each point of list and grid says, without what is drawn."""
        for row in self.rows or ({},):
            for values in product(*self.grid.values()):
                yield {**row, **dict(zip(self.grid, values, strict=True))}

    def trial(self, row: Row) -> Trial:
        """The inputs of a point."""
        parts: dict[str, Row] = {"machine": {}, "model": {}, "plan": {}, self.command: {}}
        for key, value in row.items():
            part, dot, name = key.partition(".")
            if dot and key != LABEL:
                parts[part][name] = value
        machine = row.get("machine", self.base.machine)
        if machine is None:
            raise InputError(f"{self.where}: machine is missing; needs a name of the catalogue or a TOML file")
        return Trial(
            self.command,
            machine,
            row.get("model", self.base.model),
            {**self.base.settings, **parts["machine"]},
            parts["model"],
            self.base.overridden(parts["plan"]),
            {**self.base.commands.get(self.command, {}), **parts[self.command]},
            bool(self.base.allow_overcommit),
        )

    def require_sources(self, trials: Sequence[Trial]) -> None:
        """Raise :class:`InputError` for machines, models and keys of these that no point could use."""
        machines = {each.machine if isinstance(each.machine, str) else id(each.machine): each for each in trials}
        models = {each.model if isinstance(each.model, str) else id(each.model): each for each in trials}
        tables = [machine_of(replace(each, settings={})).model_dump(mode="json") for each in machines.values()]
        if self.command != "collective":
            shapes = [model_of(replace(each, changes={})).model_dump(mode="json") for each in models.values()]
        else:
            shapes = []
        for key in self.varied:
            part, _, name = key.partition(".")
            for kind, found in (("machine", tables), ("model", shapes)):
                if name and part == kind and not any(put(table, name, None) for table in found):
                    known = list(dict.fromkeys(each for table in found for each, _ in dotted(table)))
                    raise InputError(
                        f"{self.where}: {key}: no {kind} of the study has such a key{nearest(name, known)}"
                    )


def _known(where: str, name: str, allowed: Sequence[str]) -> None:
    if name not in allowed:
        raise InputError(f"{where}: no such key{nearest(name, allowed)}")


def _text(where: str, key: str, table: Mapping[str, Any]) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} is {value}: must be a text")
    return value


def _texts(where: str, key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{where}: {key} is {value}: must be a list of names of columns")
    return value


def _table(where: str, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {key} is {value}: must be a table, [{key}]")
    return value


def _leaves(where: str, key: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(dotted key, what stands there) of a table of factors; ranges are leaves."""
    yield from _factors(_table(where, key, table.get(key, {})))


def _factors(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and not is_range(value):
            yield from _factors(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


SIZED = ("plan.mesh", "plan.placement")
"""Keys whose value may be a table itself."""


def _rows(where: str, given: Any, path: Path) -> Iterator[Row]:
    if not isinstance(given, list):
        raise InputError(f"{where}: list is {given}: must be tables, [[list]]")
    for row in given:
        yield dict(_of_row("", _table(where, "list", row)))


def _of_row(before: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and f"{before}{key}" not in SIZED:
            yield from _of_row(f"{before}{key}.", value)
        else:
            yield f"{before}{key}", value


def _sample(where: str, table: Any, command: str) -> Sample:
    table = _table(where, "sample", table)
    for key in table:
        if key not in SAMPLE:
            raise InputError(f"{where}: sample.{key}: no such key{suggestion(key, SAMPLE)}")
    method = table.get("method", "random")
    if method not in METHODS:
        raise InputError(f"{where}: sample.method is {method}: no such method{suggestion(str(method), METHODS)}")
    numbers = {
        "points": (table.get("points"), 1),
        "seed": (table.get("seed", 0), 0),
        "batch": (table.get("batch", 8), 1),
    }
    for key, (value, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_POINTS:
            found = "is missing" if value is None else f"is {value}"
            raise InputError(f"{where}: sample.{key} {found}: must be a whole number from {least} to {MOST_POINTS:,}")
    goal = table.get("goal", "minimise")
    if goal not in ("minimise", "maximise"):
        raise InputError(f"{where}: sample.goal is {goal}: must be minimise or maximise")
    over = {key: factor(f"{where}: sample.over.{key}", value) for key, value in _leaves(where, "over", table)}
    if not over:
        raise InputError(f"{where}: sample.over: needs at least one key")
    of = _text(where, "of", table) or OBJECTIVES[command]
    return Sample(method, table["points"], over, table.get("seed", 0), of, goal, table.get("batch", 8))


def _plots(where: str, given: Any) -> Iterator[PlotRequest]:
    if not isinstance(given, list):
        raise InputError(f"{where}: plots is {given}: must be tables, [[plots]]")
    choices = {
        "kind": ("line", "points", "bars"),
        "log": ("", "x", "y", "xy"),
        "ideal": ("", "proportional", "constant"),
    }
    for number, row in enumerate(given):
        table = _table(where, "plots", row)
        for key, value in table.items():
            place = f"{where}: plots.{number}.{key}"
            if key not in PLOT:
                raise InputError(f"{place}: no such key{suggestion(key, PLOT)}")
            if not isinstance(value, str):
                raise InputError(f"{place} is {value}: must be a text")
            if key in choices and value not in choices[key]:
                raise InputError(f"{place} is {value}: must be one of {', '.join(filter(None, choices[key]))}")
        for key in ("x", "y"):
            if key not in table:
                raise InputError(f"{where}: plots.{number}.{key}: is missing; needs a column")
        yield PlotRequest(**table)
