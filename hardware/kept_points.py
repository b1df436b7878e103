"""Finished points of a long study, a line each, so that an interrupted study goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import make_folder, write_whole


class Points:
    """The finished points that lie in a folder: ``known`` by key, those of all files ``points*.jsonl``.

    This process writes to ``points.jsonl``, or to a file of its own where several jobs work on one study at a time
    (``part``). Raises :class:`InputError` where these cannot be read or written.
    """

    def __init__(self, folder: Path, part: str = "") -> None:
        self.path = folder / f"points{f'-{part}' if part else ''}.jsonl"
        self.known: dict[str, dict[str, Any]] = {}
        self._ends_well = True
        others = sorted(each for each in folder.glob("points*.jsonl") if each != self.path)
        for path in [*others, self.path]:
            if not path.exists():
                continue
            kept = _read(path)
            if path == self.path:
                self._ends_well = not kept or kept.endswith("\n")
            for line in kept.splitlines():
                try:
                    entry = json.loads(line)
                    self.known[entry["key"]] = entry["summary"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # the line that an interruption cut short

    def keep(self, key: str, summary: dict[str, Any]) -> None:
        """Append a finished point, unless it is known."""
        if key in self.known:
            return
        self.known[key] = summary
        line = json.dumps({"key": key, "summary": summary}) + "\n"
        make_folder(self.path.parent)
        try:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(line if self._ends_well else f"\n{line}")
        except OSError as reason:
            raise InputError(f"{self.path}: cannot be written: {reason.strerror}") from None
        self._ends_well = True

    def settle(self, order: Sequence[str]) -> None:
        """Put the points of a study that has ended in its order: the file does not tell who was first."""
        wanted = [*(key for key in self.known if key not in {*order}), *order]
        if wanted == list(self.known):
            return
        self.known = {key: self.known[key] for key in wanted}
        lines = (json.dumps({"key": key, "summary": summary}) + "\n" for key, summary in self.known.items())
        write_whole(self.path, "".join(lines))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as reason:
        raise InputError(f"{path}: cannot be read: {reason.strerror}") from None
