"""The output folder of a study: checked before work starts, and files written all together or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from ...hardware.errors import InputError
from ...hardware.files import make_folder, write_all
from ...hardware.locks import Lock, lock

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ...hardware.machine import Machine
    from ...workloads.model.model import Model


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

    def parquet(self, name: str, frame: pd.DataFrame) -> None:
        """Write a data frame as Parquet."""
        content = frame.to_parquet(None, index=False)
        assert isinstance(content, bytes)
        self._keep(name, content)

    def inputs(self, machine: Machine, model: Model) -> None:
        """Write ``machine.toml`` and ``model.toml``: what the results are of, with sources, to be simulated again."""
        from ...hardware.machine_writer import machine_toml
        from ...workloads.model.model_writer import model_toml

        self.text("machine.toml", machine_toml(machine))
        self.text("model.toml", model_toml(model))

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
