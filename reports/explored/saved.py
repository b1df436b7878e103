"""Saved results: what a file or folder holds, found out by what it says of itself, and the story of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...hardware.errors import InputError
from ...hardware.records import describe
from ...workloads.results.run import Run
from ...workloads.results.totals import Totals
from ..formats.reading.files import TRACE, content, text
from .story import Chart, Story

WRITTEN = ("run.json", "plan.json", "points.parquet", "points.csv", "campaign.json", "training.json", "scale.json")
"""What ``--out`` folders hold their results in, the first that is there."""


@dataclass(frozen=True)
class Kind:
    """A kind of results: what it is called, how its JSON is known, and who tells its story."""

    name: str
    known: Callable[[Mapping[str, Any]], bool]
    story: Callable[[Any, str, Chart | None], Story]


def _run(plain: Any, name: str, choice: Chart | None) -> Story:
    from . import runs

    run = Run.from_plain(plain, name)
    return runs.story(run.summary(), run, choice)


def _summary(plain: Any, name: str, choice: Chart | None) -> Story:
    from . import runs

    try:
        return runs.story(Totals.model_validate(plain).plain())
    except ValidationError as wrong:
        raise InputError(f"{name}: {describe(Totals, wrong)}") from None


def _plan(plain: Any, name: str, choice: Chart | None) -> Story:
    from . import plans

    return plans.story(plain)


def _campaign(plain: Any, name: str, choice: Chart | None) -> Story:
    from . import campaigns

    return campaigns.story(plain)


def _training(plain: Any, name: str, choice: Chart | None) -> Story:
    from . import trainings

    return trainings.story(plain)


def _scaling(plain: Any, name: str, choice: Chart | None) -> Story:
    from . import scalings

    return scalings.story(plain)


KINDS = (
    Kind("a run", lambda plain: str(plain.get("format", "")).startswith("athanor-run/"), _run),
    Kind("a plan search", lambda plain: plain.get("format") == "athanor-plan/1", _plan),
    Kind("a campaign", lambda plain: {"ledger", "goodput", "seeds"} <= plain.keys(), _campaign),
    Kind("a training", lambda plain: {"loss", "tokens_per_step", "gradient_norm"} <= plain.keys(), _training),
    Kind(
        "a scaling study", lambda plain: {"kind", "grow", "points"} <= plain.keys() and bool(plain["points"]), _scaling
    ),
    Kind("a run's summary", lambda plain: {"step_seconds", "breakdown_by_phase"} <= plain.keys(), _summary),
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


def story_of(path: str | Path, choice: Chart | None = None, link: Callable[[int], str] | None = None) -> Story:
    """The story of a saved result; raises :class:`InputError` in one line for a file that holds none.

    ``choice`` are points behind sliders, of a run; ``link`` gives the address of the page of a study's point, by its row.
    """
    path = results_of(path)
    try:
        if path.suffix in (".parquet", ".csv"):
            return _points(path, link)
        plain = _json(path)
        kind = next((each for each in KINDS if isinstance(plain, dict) and each.known(plain)), None)
        if kind is None:
            names = ", ".join(each.name for each in KINDS)
            raise InputError(f"{path}: holds no results that a page can be made of: {names}, or a study's points")
        return kind.story(plain, str(path), choice)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ZeroDivisionError) as reason:
        told = f"has no or a wrong {reason}" if isinstance(reason, KeyError) else str(reason)
        raise InputError(f"{path}: cannot be shown: {' '.join(told.split())}") from None


def run_of(path: str | Path) -> Run | None:
    """The Run in a file, None where it holds something else; raises :class:`InputError` for what cannot be read."""
    path = results_of(path)
    if path.suffix != ".json":
        return None
    plain = _json(path)
    return Run.from_plain(plain, str(path)) if isinstance(plain, dict) and KINDS[0].known(plain) else None


def points_of(path: Path) -> Any:
    """The table of a study's points; raises :class:`InputError` for any other."""
    from io import BytesIO

    import pandas as pd

    found = content(path, TRACE)
    try:
        frame = (
            pd.read_parquet(BytesIO(found))
            if path.suffix == ".parquet"
            else pd.read_csv(BytesIO(found), keep_default_na=False, na_values=[""])
        )
    except Exception as reason:  # both readers raise many kinds
        raise InputError(f"{path}: is no table: {' '.join(str(reason).split())}") from None
    missing = [name for name in ("point", "status", "reason") if name not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            f"{path}: is no table of a study's points: {f'no column {missing[0]}' if missing else 'no rows'}"
        )
    return frame


def _points(path: Path, link: Callable[[int], str] | None) -> Story:
    from . import studies

    frame = points_of(path)
    links = [link(at) for at in range(len(frame))] if link else []
    return studies.story(frame, path.parent.resolve().name or path.stem, links)


def _json(path: Path) -> Any:
    try:
        return json.loads(text(path, TRACE), parse_constant=_no_number)
    except (json.JSONDecodeError, RecursionError) as reason:
        raise InputError(f"{path}: is no JSON: {reason}") from None


def _no_number(name: str) -> float:
    raise InputError(f"{name} is no number that JSON has")
