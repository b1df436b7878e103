"""Files are written whole or not at all: beside their place first, then moved there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import InputError


def write_whole(target: str | Path, content: bytes | str | Iterable[str]) -> None:
    """Write a file whole or not at all; raises :class:`InputError` where it cannot be written, which leaves what was there.

    Content may come in pieces. A link is followed; what is no file, such as ``/dev/stdout`` or a pipe, is written to as it is.
    """
    write_all({Path(target): content})


def write_all(contents: Mapping[Path, bytes | str | Iterable[str]]) -> None:
    """Write several files, all or none: they are moved to their places when each of them has been written beside its own."""
    partial: dict[Path, Path] = {}
    target = Path()
    try:
        for target, content in contents.items():
            place = target.resolve()
            if place.exists() and not place.is_file():
                if place.is_dir():
                    raise IsADirectoryError(None, "Is a directory")
                _write(place, content)
                continue
            beside = place.with_name(f".{place.name}.{os.getpid()}.part")
            partial[beside] = place
            _write(beside, content)
            if place.exists():
                beside.chmod(place.stat().st_mode & 0o7777)
        for beside, target in partial.items():
            beside.replace(target)
    except OSError as reason:
        raise InputError(f"{target}: cannot be written: {reason.strerror}") from None
    finally:
        for beside in partial:
            beside.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder with its parents; raises :class:`InputError` where that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise InputError(f"{path}: cannot be written: {reason.strerror}") from None


def _write(place: Path, content: bytes | str | Iterable[str]) -> None:
    if isinstance(content, bytes | str):
        place.write_bytes(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
        return
    with place.open("wb") as file:
        file.writelines(piece.encode(errors="backslashreplace") for piece in content)
