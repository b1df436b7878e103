"""A folder of results that is only read: its files, without following links, and nothing outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from ...hardware.errors import InputError
from ...hardware.units import binary

MOST_FILES = 5_000
"""Files of a folder that are looked at."""

MOST_BYTES = 64 * 2**20
"""Of a file that is read."""


class NotThere(Exception):
    """No such file in the folder, or none that is shown."""


class ResultsFolder:
    """A folder that is only read. Paths are those of addresses: parts joined by ``/``, without links, ``..`` or hidden names.

    Raises :class:`InputError` for what is no folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        if not self.path.is_dir():
            raise InputError(f"{path}: no such folder")

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises :class:`NotThere` for all that is no plain file inside, and what is too large."""
        parts = self._parts(name)
        holder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=holder)
                os.close(holder)
                holder = inner
            # A pipe would keep its reader waiting: it is opened without.
            with os.fdopen(
                os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=holder), "rb"
            ) as file:
                status = os.fstat(file.fileno())
                if not S_ISREG(status.st_mode):
                    raise NotThere(f"{name}: no file")
                if status.st_size > MOST_BYTES:
                    raise NotThere(
                        f"{name}: {binary(status.st_size)}, more than the {binary(MOST_BYTES)} that are read"
                    )
                return file.read(MOST_BYTES + 1)
        except (OSError, ValueError):
            raise NotThere(f"{name}: no such file here") from None
        finally:
            os.close(holder)

    @staticmethod
    def _parts(name: str) -> list[str]:
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") or part[0] == "." or "\0" in part or "\\" in part for part in parts):
            raise NotThere("no such file here")
        return parts

    def files(self) -> Iterator[tuple[str, int, int]]:
        """(path, bytes, time of the last change in ns) of its files, sorted; hidden ones and links are left out."""
        seen = 0
        folders = [""]
        while folders:
            folder = folders.pop(0)
            try:
                entries = sorted(os.scandir(self.path / folder), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name[0] == "." or "\\" in entry.name or not entry.name.isprintable():
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if S_ISDIR(status.st_mode):
                    folders.append(name)
                elif S_ISREG(status.st_mode):
                    seen += 1
                    if seen > MOST_FILES:
                        return
                    yield name, status.st_size, status.st_mtime_ns
