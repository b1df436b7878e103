"""The output folder of a study: checked before work starts, and every file written whole or not at all."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Folder:
    """A folder for results.

    Made (with its parents) and probed when created, so that a path that cannot be written is refused before anything
    is computed. Raises :class:`InputError` then, and whenever a write fails.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as reason:
            raise InputError(f"--out {path}: cannot be written: {reason.strerror}") from None

    def text(self, name: str, content: str) -> None:
        """Write a text file."""
        self._bytes(name, content.encode())

    def json(self, name: str, plain: Any) -> None:
        """Write plain data as indented JSON."""
        self.text(name, json.dumps(plain, indent=1) + "\n")

    def frame(self, name: str, frame: pd.DataFrame) -> None:
        """Write a data frame as CSV."""
        self.text(name, frame.to_csv(index=False))

    def figure(self, name: str, figure: Figure) -> str:
        """Write a figure as ``name.svg`` and ``name.png``; returns the SVG for a report."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=150)
        self._bytes(f"{name}.png", drawn.getvalue())
        vector = as_svg(figure)
        self.text(f"{name}.svg", vector)
        return vector[vector.index("<svg") :]

    def _bytes(self, name: str, content: bytes) -> None:
        write_whole(self.path / name, content)


def write_whole(target: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; raises :class:`InputError` where it cannot be written."""
    partial = target.with_name(f".{target.name}.part")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
        partial.replace(target)
    except OSError as reason:
        raise InputError(f"{target}: cannot be written: {reason.strerror}") from None


def as_svg(figure: Figure) -> str:
    """A figure as SVG text, the same for the same figure."""
    import matplotlib

    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "athanor", "svg.fonttype": "path"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


class Points:
    """Finished points of a long study, a line each, so that an interrupted study goes on where it stopped."""

    def __init__(self, folder: Folder) -> None:
        self.path = folder.path / "points.jsonl"
        self.known: dict[str, dict[str, Any]] = {}
        self._ends_well = True
        if self.path.exists():
            kept = self._read()
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
        try:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(line if self._ends_well else f"\n{line}")
        except OSError as reason:
            raise InputError(f"{self.path}: cannot be written: {reason.strerror}") from None
        self._ends_well = True

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as reason:
            raise InputError(f"{self.path}: cannot be read: {reason.strerror}") from None
