"""Saved results: what a file or folder holds, found out by what it says of itself, and the story of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ...hardware.errors import InputError
from ...hardware.records import describe
from ...workloads.results.run import Run
from ...workloads.results.run_inputs import RunInputs
from ...workloads.results.totals import Totals
from ..content.inputs import inputs
from ..content.sections import Section
from ..formats.reading.files import TRACE, content
from .story import Chart, Story

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".parquet", ".csv")
"""Endings of tables."""

BESIDE = ("plan.json", "scale.json", "campaign.json", "training.json")
"""Results of ``--out`` folders that have their machine and model beside them."""

WRITTEN = ("run.json", *BESIDE, "points.parquet", "points.csv")
"""What ``--out`` folders hold their results in, the first that is there."""


@dataclass(frozen=True)
class ResultKind:
    """A kind of results: what it is called, how its JSON is known, and who tells its story."""

    name: str
    known: Callable[[Mapping[str, Any]], bool]
    story: Callable[[Any, str, Chart | None], Story]


def _run(plain: Any, name: str, choice: Chart | None) -> Story:
    from .stories import runs

    run = Run.from_plain(plain, name)
    return runs.story(run.summary(), run, choice)


def _summary(plain: Any, name: str, choice: Chart | None) -> Story:
    from .stories import runs

    try:
        return runs.story(Totals.model_validate(plain).plain())
    except ValidationError as wrong:
        raise InputError(f"{name}: {describe(Totals, wrong)}") from None


def _plan(plain: Any, name: str, choice: Chart | None) -> Story:
    from .stories import plans

    return plans.story(plain)


def _campaign(plain: Any, name: str, choice: Chart | None) -> Story:
    from .stories import campaigns

    return campaigns.story(plain)


def _training(plain: Any, name: str, choice: Chart | None) -> Story:
    from .stories import trainings

    return trainings.story(plain)


def _scaling(plain: Any, name: str, choice: Chart | None) -> Story:
    from .stories import scalings

    return scalings.story(plain)


KINDS = (
    ResultKind("a run", lambda plain: str(plain.get("format", "")).startswith("athanor-run/"), _run),
    ResultKind("a plan search", lambda plain: plain.get("format") == "athanor-plan/1", _plan),
    ResultKind("a campaign", lambda plain: {"ledger", "goodput", "seeds"} <= plain.keys(), _campaign),
    ResultKind("a training", lambda plain: {"loss", "tokens_per_step", "gradient_norm"} <= plain.keys(), _training),
    ResultKind(
        "a scaling study", lambda plain: {"kind", "grow", "points"} <= plain.keys() and bool(plain["points"]), _scaling
    ),
    ResultKind("a run's summary", lambda plain: {"step_seconds", "breakdown_by_phase"} <= plain.keys(), _summary),
)
"""The kinds of JSON that a page can be made of; a table of points is told by its columns."""


def results_of(path: str | Path) -> Path:
    """The file of a folder of ``--out``, or the file itself; raises :class:`InputError` where there is none."""
    path = Path(path)
    if not path.is_dir():
        return path
    found = next((path / name for name in WRITTEN if (path / name).is_file()), None)
    if found is None:
        raise InputError(f"{path}: holds no results: none of {', '.join(WRITTEN)}")
    return found


def story_of(path: str | Path, choice: Chart | None = None) -> Story:
    """The story of a saved result; raises :class:`InputError` in one line for a file that holds none.

    ``choice`` are points behind sliders, of a run.
    """
    path = results_of(path)
    return told(path, content(path, TRACE), partial(_beside, path), choice)


def _beside(path: Path, name: str) -> bytes | None:
    """The bytes of a file beside one of results; None where there is none."""
    other = path.with_name(name)
    return content(other) if other.is_file() else None


def told(
    path: Path,
    found: bytes,
    beside: Callable[[str], bytes | None],
    choice: Chart | None = None,
    link: Callable[[int], str] | None = None,
) -> Story:
    """The story of the bytes of a file.

    ``beside`` reads another file of its folder: ``--out`` has the machine and the model there. ``link`` gives the address of the
    page of a study's point, by its row.
    """
    try:
        if path.suffix in TABLES:
            from .stories import studies

            frame = points_of(path, found)
            links = [link(at) for at in range(len(frame))] if link else []
            return _in_text(studies.story(frame, path.resolve().parent.name or path.stem, links), str(path))
        plain = _json(path, found)
        kind = kind_of(plain)
        if kind is None:
            names = ", ".join(each.name for each in KINDS)
            raise InputError(f"{path}: holds no results that a page can be made of: {names}, or a study's points")
        story = _in_text(kind.story(plain, str(path), choice), str(path))
        return replace(story, sources=[*story.sources, *_inputs(path, beside)]) if path.name in BESIDE else story
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ArithmeticError) as reason:
        why = f"has no or a wrong {reason}" if isinstance(reason, KeyError) else str(reason)
        raise InputError(f"{path}: cannot be shown: {' '.join(why.split())}") from None


def _in_text(story: Story, file: str) -> Story:
    """The same of a file, with texts in all cells, whatever a file has there."""
    parts = [replace(part, section=_section_in_text(part.section)) for part in story.parts]
    sources = [_section_in_text(section) for section in story.sources]
    return replace(story, parts=parts, sources=sources, warnings=[str(each) for each in story.warnings], file=file)


def _section_in_text(section: Section) -> Section:
    return replace(section, rows=[tuple("" if cell is None else str(cell) for cell in row) for row in section.rows])


def _inputs(path: Path, beside: Callable[[str], bytes | None]) -> list[Section]:
    """Machine and model of a folder, every number with its source."""
    machine, model = beside("machine.toml"), beside("model.toml")
    if machine is None or model is None:
        return []
    found = RunInputs((machine.decode(errors="replace"), model.decode(errors="replace")), str(path.parent))
    return inputs(found.machine, found.model, {})[:2]


def kind_of(plain: Any) -> ResultKind | None:
    """The kind of results that JSON holds, None where it holds none."""
    return next((each for each in KINDS if isinstance(plain, dict) and each.known(plain)), None)


def run_of(path: str | Path) -> Run | None:
    """The Run in a file, None where it holds something else; raises :class:`InputError` for what cannot be read."""
    path = results_of(path)
    if path.suffix != ".json":
        return None
    plain = _json(path, content(path, TRACE))
    return Run.from_plain(plain, str(path)) if kind_of(plain) is KINDS[0] else None


def points_of(path: Path, found: bytes) -> pd.DataFrame:
    """The table of a study's points; raises :class:`InputError` for any other."""
    from io import BytesIO

    import pandas as pd

    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(BytesIO(found))
        else:
            frame = pd.read_csv(BytesIO(found), keep_default_na=False, na_values=[""])
    except Exception as reason:  # both readers raise many kinds
        raise InputError(f"{path}: is no table: {' '.join(str(reason).split())}") from None
    missing = [name for name in ("point", "status", "reason") if name not in frame.columns]
    if missing or frame.empty:
        why = f"no column {missing[0]}" if missing else "no rows"
        raise InputError(f"{path}: is no table of a study's points: {why}")
    return frame


def _json(path: Path, found: bytes) -> Any:
    try:
        return json.loads(found.decode("utf-8-sig"), parse_constant=partial(_no_number, path))
    except (ValueError, RecursionError) as reason:
        raise InputError(f"{path}: is no JSON: {reason}") from None


def _no_number(path: Path, name: str) -> float:
    raise InputError(f"{path}: {name} is no number that JSON has")
