"""The output folder of a study: checked before work starts, and files written all together or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from ...hardware.errors import InputError
from ...hardware.files import write_all, write_whole
from ...hardware.locks import Lock, lock

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


Arguments = ParamSpec("Arguments")


class Folder:
    """A folder for results.

    Probed when created, so that a path that cannot be written is refused before anything is computed; made (with its parents)
    when the first file is written, so that work that fails leaves nothing behind. Files that are written within
    :meth:`whole` appear together at its end, or none of them. Raises :class:`InputError` where something cannot be written, or
    another process is writing there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._staged: dict[Path, bytes | str] | None = None
        missing = [each for each in (self.path, *self.path.parents) if not each.exists()]
        made: list[Path] = []
        try:
            for each in reversed(missing):
                each.mkdir()
                made.append(each)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as reason:
            raise InputError(f"--out {path}: cannot be written: {reason.strerror}") from None
        finally:
            for each in reversed(made):
                each.rmdir()
        self._lock: Lock | None = lock(self.path) if self.path.is_dir() else None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All files that are written inside, or none: where something fails the folder stays as it was."""
        if self._staged is not None:
            yield
            return
        self._staged = {}
        try:
            yield
            self._write(self._staged)
        finally:
            self._staged = None

    def text(self, name: str, content: str) -> None:
        """Write a text file."""
        self._keep(name, content)

    def json(self, name: str, plain: Any) -> None:
        """Write plain data as indented JSON."""
        self.text(name, json.dumps(plain, indent=1) + "\n")

    def frame(self, name: str, frame: pd.DataFrame) -> None:
        """Write a data frame as CSV; truths are yes and no."""
        truths = frame.select_dtypes("bool").columns
        plain = frame.assign(**{name: frame[name].map({True: "yes", False: "no"}) for name in truths})
        self.text(name, plain.to_csv(index=False))

    def figure(self, name: str, figure: Figure) -> str:
        """Write a figure as ``name.svg`` and ``name.png``; returns the SVG for a report."""
        from ..plots.draw import as_png, as_svg

        self._keep(f"{name}.png", as_png(figure))
        vector = as_svg(figure)
        self.text(f"{name}.svg", vector)
        return vector[vector.index("<svg") :]

    def _keep(self, name: str, content: bytes | str) -> None:
        if self._staged is None:
            self._write({self.path / name: content})
        else:
            self._staged[self.path / name] = content

    def _write(self, contents: dict[Path, bytes | str]) -> None:
        make_folder(self.path)
        self._lock = self._lock or lock(self.path)
        write_all(contents)


def all_or_nothing(
    write: Callable[Concatenate[Folder, Arguments], None],
) -> Callable[Concatenate[Folder, Arguments], None]:
    """For functions that fill a folder: what they write appears together when they end, or not at all."""

    @wraps(write)
    def wrapped(folder: Folder, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        with folder.whole():
            write(folder, *arguments, **named)

    return wrapped


def make_folder(path: Path) -> None:
    """Make a folder with its parents; raises :class:`InputError` where that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise InputError(f"{path}: cannot be written: {reason.strerror}") from None


class Points:
    """Finished points of a long study, a line each, so that an interrupted study goes on where it stopped."""

    def __init__(self, folder: Folder) -> None:
        self.path, self._folder = folder.path / "points.jsonl", folder
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

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as reason:
            raise InputError(f"{self.path}: cannot be read: {reason.strerror}") from None
