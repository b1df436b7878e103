"""What goes to the terminal and to single files: consoles, progress, JSON. Imports nothing heavy until used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError
from ...hardware.files import write_whole

if TYPE_CHECKING:
    from rich.console import Console


def emit(json_path: str | None, plain: Any) -> None:
    """JSON to a file, or to standard output."""
    text = json.dumps(plain, indent=1)
    if json_path == "-":
        print(text)
    elif json_path:
        write_whole(json_path, text + "\n")


def check_writable(*paths: str | None) -> None:
    """Refuse files that cannot be written before work starts; existing ones are left as they are, ``-`` and None pass."""
    for path in paths:
        if path is None or path == "-":
            continue
        try:
            existed = Path(path).exists()
            with Path(path).open("a", encoding="utf-8"):
                pass
            if not existed:
                Path(path).unlink()
        except OSError as reason:
            raise InputError(f"{path}: cannot be written: {reason.strerror}") from None


def console(stderr: bool = False) -> Console:
    """A console for tables; in a file or a pipe it is wide enough for all of them."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = max(made.width, 150)
    return made


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Progress on stderr, a bar on a terminal and lines in a log: call it with what is being worked on."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    stderr = console(stderr=True)
    if not stderr.is_terminal:
        yield lambda text: stderr.print(f"{what}: {text}", markup=False)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(what, total=total)

        def advance(text: str) -> None:
            bar.update(task, description=f"{what}: {text}", advance=1)

        yield advance
