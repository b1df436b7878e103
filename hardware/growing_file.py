"""Files that grow by a line, an object of JSON each: an interruption costs no more than the line that it cut short."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InputError
from .records import parsed_json


class GrowingFile:
    """Such a file, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends_well = True

    def entries(self) -> list[Any]:
        """What its lines hold, but for those that are no JSON; raises :class:`InputError` where it cannot be read."""
        if not self.path.exists():
            return []
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as reason:
            raise InputError(f"{self.path}: cannot be read: {reason.strerror}") from None
        self._ends_well = not text or text.endswith("\n")
        found = []
        for line in text.splitlines():
            try:
                found.append(parsed_json(line))
            except ValueError:
                continue
        return found

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line, behind one that was cut short on a line of its own; raises :class:`InputError` where that is impossible."""
        line = json.dumps(entry) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(line if self._ends_well else f"\n{line}")
        except OSError as reason:
            raise InputError(f"{self.path}: cannot be written: {reason.strerror}") from None
        self._ends_well = True
