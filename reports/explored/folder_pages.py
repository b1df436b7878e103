"""The pages of a folder of results: what is in it, each result, each point of a study, and which runs are such points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any
from urllib.parse import quote

from ...hardware.errors import InputError
from ...workloads.mesh.mesh_text import mesh_text
from ..content.sections import Section
from ..content.studies import cell, heading
from .folder import MOST_BYTES, NotThere, ResultsFolder
from .saved import TABLES, WRITTEN, told
from .story import Fact, Story, StoryPart

Key = tuple[str, str, str, str]
"""What a run and a study's point have in common where they are one: machine, model, mesh, seconds of a step."""

SAME = "The same machine, model, mesh and step time."

FILES = {
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".csv": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".toml": "text/plain; charset=utf-8",
    ".jsonl": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/octet-stream",
}
"""Files that are shown as they are, and as what."""


@dataclass(frozen=True)
class Found:
    """A file of results: its path in the folder, its story in short, and the key of its run or the rows of its points."""

    path: str
    kind: str
    title: str
    answer: str
    key: Key | None = None
    points: Mapping[Key, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pair:
    """A run that is a point of a study."""

    run: Found
    study: Found
    row: int


class FolderPages:
    """The stories of a folder's pages. What a file holds is remembered until it changes."""

    def __init__(self, folder: ResultsFolder) -> None:
        self.folder = folder
        self._known: dict[tuple[str, int, int], Found | None] = {}
        self._lock = Lock()

    def found(self) -> list[Found]:
        """Every file of results; a study's table once, though it is there as Parquet and as CSV."""
        every = list(self.folder.files())
        names = {name for name, _, _ in every}
        results = []
        for name, size, changed in every:
            path = PurePosixPath(name)
            twice = path.suffix == ".csv" and str(path.with_suffix(".parquet")) in names
            wanted = path.suffix == ".json" or (path.suffix in TABLES and path.name in WRITTEN)
            if wanted and not twice and size <= MOST_BYTES and (one := self._short(name, size, changed)):
                results.append(one)
        return results

    def _short(self, name: str, size: int, changed: int) -> Found | None:
        place = (name, size, changed)
        with self._lock:
            if place in self._known:
                return self._known[place]
        try:
            story = self._story(name)
            one = Found(name, story.kind, story.title, story.answer, _key(story.summary), _points(story.summary))
        except (InputError, NotThere):
            one = None
        with self._lock:
            self._known[place] = one
        return one

    def _story(self, name: str) -> Story:
        """The story of a file; raises :class:`NotThere` or :class:`InputError`."""

        def beside(other: str) -> bytes | None:
            try:
                return self.folder.read(str(PurePosixPath(name).with_name(other)))
            except NotThere:
                return None

        return told(Path(name), self.folder.read(name), beside, link=lambda row: point_address(name, row))

    def index(self) -> Story:
        """All results, which runs are points of which study, and all other files."""
        found, parts = self.found(), []
        rows = [(each.path, each.kind, each.title, each.answer) for each in found]
        section = Section("Results", "", ("result", "kind", "of", "answer"), rows, 4)
        parts.append(StoryPart(section, filtered=len(found) > 8, links=[(view_address(each.path),) for each in found]))
        if pairs := _pairs(found):
            columns, texts = (
                ("run", "study", "row"),
                [(each.run.path, each.study.path, str(each.row)) for each in pairs],
            )
            part = StoryPart(
                Section("Runs that are points of a study", SAME, columns, texts, 2), links=[*map(_links, pairs)]
            )
            parts.append(part)
        known = {each.path for each in found}
        others = [(name, f"{size:,} B") for name, size, _ in self.folder.files() if name not in known and _shown(name)]
        if others:
            links = [(file_address(name),) for name, _ in others]
            parts.append(
                StoryPart(Section("Other files", "", ("file", "size"), others), filtered=len(others) > 8, links=links)
            )
        kinds = dict.fromkeys(each.kind for each in found)
        facts = [
            Fact(kind.partition(" ")[2].capitalize(), str(sum(each.kind == kind for each in found))) for kind in kinds
        ]
        name = self.folder.path.name or "results"
        return Story("a folder of results", name, f"{len(found)} results and {len(others)} other files.", facts, parts)

    def view(self, name: str) -> Story:
        """A result, with the studies of which it is a point, or the runs that are its points."""
        story = self._story(name)
        here = [each for each in _pairs(self.found()) if name in (each.run.path, each.study.path)]
        if not here:
            return story
        rows = [(each.run.path, each.study.path, str(each.row)) for each in here]
        part = StoryPart(Section("In this folder", SAME, ("run", "study", "row"), rows, 2), links=[*map(_links, here)])
        return replace(story, parts=[*story.parts, part])

    def point(self, name: str, row: int) -> Story:
        """One point of a study: all that is known of it, its exact inputs, and the runs that are it."""
        study = self._story(name)
        rows = study.summary.get("rows", [])
        if not 0 <= row < len(rows):
            raise NotThere(f"{name}: no row {row}")
        runs = [each.run.path for each in _pairs(self.found()) if each.study.path == name and each.row == row]
        return _point_story(study, rows[row], runs)


def _point_story(study: Story, row: Mapping[str, Any], runs: Sequence[str]) -> Story:
    varied, goal = study.summary["varied"], study.summary["goal"]
    known = [name for name in varied if name in row]
    facts = [Fact(heading(name), cell(name, row[name])) for name in ([goal] if goal in row else []) + known[:6]]
    cells = [
        (heading(name), cell(name, value))
        for name, value in row.items()
        if name != "inputs" and value not in (None, "")
    ]
    parts = [StoryPart(Section("What came out", "", ("column", "value"), cells, 1), filtered=True)]
    if runs:
        section = Section("Runs", SAME, ("run",), [(path,) for path in runs], 1)
        parts.insert(0, StoryPart(section, links=[(view_address(path),) for path in runs]))
    inputs = json.loads(row["inputs"]) if row.get("inputs") else {}
    flat = [(key, json.dumps(value) if isinstance(value, dict | list) else str(value)) for key, value in inputs.items()]
    where = ", ".join(f"{heading(name)} {cell(name, row[name])}" for name in known)
    became = where if row["status"] == "ok" else f"{where}: {row['status']}, {row.get('reason') or ''}"
    title = f"{study.title}, point {row['point']}"
    sources = [Section("Exact inputs", "", ("key", "value"), flat, 2)] if flat else []
    return Story("a point of a study", title, f"Point {row['point']}: {became}.", facts, parts, sources)


def _pairs(found: Sequence[Found]) -> list[_Pair]:
    studies = [each for each in found if each.points]
    return [
        _Pair(run, study, study.points[run.key])
        for run in found
        if run.key
        for study in studies
        if run.key in study.points
    ]


def _links(pair: _Pair) -> tuple[str, str, str]:
    study = pair.study.path
    return view_address(pair.run.path), view_address(study), point_address(study, pair.row)


def _key(summary: Mapping[str, Any]) -> Key | None:
    """The key of a run's summary; None of what is no run."""
    if "each_step_seconds" not in summary:
        return None
    return summary["machine"], summary["model"], mesh_text(summary["mesh"]), f"{summary['step_seconds']:.9g}"


def _points(summary: Mapping[str, Any]) -> dict[Key, int]:
    """Rows of a study by the keys of their steps."""
    found: dict[Key, int] = {}
    for number, row in enumerate(summary.get("rows", ())):
        if all(name in row for name in ("machine", "model", "mesh", "step_seconds")):
            key = (str(row["machine"]), str(row["model"]), str(row["mesh"]), f"{row['step_seconds']:.9g}")
            found.setdefault(key, number)
    return found


def _shown(name: str) -> bool:
    return PurePosixPath(name).suffix in FILES


def view_address(name: str) -> str:
    """Where the page of a result is."""
    return f"/view/{quote(name)}"


def point_address(name: str, row: int) -> str:
    """Where the page of a point is."""
    return f"/point/{row}/{quote(name)}"


def file_address(name: str) -> str:
    """Where a file is as it is."""
    return f"/file/{quote(name)}"
