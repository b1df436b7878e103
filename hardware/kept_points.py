"""Finished points of a long study, a line each, so that an interrupted study goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import make_folder, write_whole
from .growing_file import GrowingFile
from .locks import Lock, lock


class Points:
    """The finished points that lie in a folder: ``known`` by key, those of all files ``points*.jsonl``.

    This process writes to ``points.jsonl``, or to a file of its own where several jobs work on one study at a time
    (``part``): the folder, or that file, is this process's alone meanwhile. Raises :class:`InputError` where these cannot be
    read or written.
    """

    def __init__(self, folder: Path, part: str = "") -> None:
        self.path = folder / f"points{f'-{part}' if part else ''}.jsonl"
        self._file = GrowingFile(self.path)
        self._lock: Lock | None = None
        self._whole = not part
        if folder.is_dir():
            self._hold()
        self.known = known_points(folder, self._file)

    def keep(self, key: str, summary: dict[str, Any]) -> None:
        """Append a finished point, unless it is known."""
        if key in self.known:
            return
        self.known[key] = summary
        make_folder(self.path.parent)
        self._hold()
        self._file.append({"key": key, "summary": summary})

    def _hold(self) -> None:
        """Take the lock, unless it is held."""
        if self._lock is None:
            self._lock = lock(self.path.parent if self._whole else self.path)

    def settle(self, order: Sequence[str]) -> None:
        """Put the points of a study that has ended in its order: the file does not tell who was first."""
        wanted = [*(key for key in self.known if key not in {*order}), *order]
        if wanted == list(self.known):
            return
        self.known = {key: self.known[key] for key in wanted}
        lines = (json.dumps({"key": key, "summary": summary}) + "\n" for key, summary in self.known.items())
        write_whole(self.path, "".join(lines))


def known_points(folder: Path, last: GrowingFile | None = None) -> dict[str, dict[str, Any]]:
    """The finished points of all files of a folder by key; those of ``last``, which holds, at the end."""
    known: dict[str, dict[str, Any]] = {}
    others = [GrowingFile(each) for each in sorted(folder.glob("points*.jsonl")) if last is None or each != last.path]
    for file in [*others, *([last] if last else [])]:
        for entry in file.entries():
            try:
                known[entry["key"]] = entry["summary"]
            except (KeyError, TypeError):
                continue
    return known
