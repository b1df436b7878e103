"""Files and folders under way: only one process at a time writes them."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from .errors import InputError


class Lock:
    """Holds a file or folder, for as long as it is kept; it goes with its process, and leaves nothing behind.

    Raises :class:`InputError` where another process has it. File systems without locks are written to as ever.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self._file = os.open(path, flags, 0o666)
        weakref.finalize(self, os.close, self._file)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: is being written by another process{_holder(self._file)}") from None
        except OSError:
            return


_HELD: weakref.WeakValueDictionary[Path, Lock] = weakref.WeakValueDictionary()


def lock(path: str | Path) -> Lock:
    """The lock of a folder, or of a file, which is made where it is missing; what this process holds already is shared."""
    place = Path(path).resolve()
    found = _HELD.get(place)
    if found is None:
        try:
            found = Lock(place, os.O_RDONLY if place.is_dir() else os.O_RDWR | os.O_CREAT)
        except OSError as reason:
            raise InputError(f"{path}: cannot be written: {reason.strerror}") from None
        _HELD[place] = found
    return found


def _holder(file: int) -> str:
    """Who has the lock, as far as the kernel says."""
    number = os.fstat(file).st_ino
    try:
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, *_, process, inode, _, _ = line.split()
            if kind == "FLOCK" and inode.endswith(f":{number}"):
                return f" ({process})"
    except (OSError, ValueError):
        pass
    return ""
