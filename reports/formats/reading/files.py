"""The bytes of a file of others: no more than a bound, unpacked or not, and its text."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from ....hardware.errors import InputError
from ....hardware.units import binary

TEXT, TRACE = 16 * 2**20, 512 * 2**20
"""Bytes that a file may have, unpacked: of configurations, scripts and logs; of traces."""

GZIP = b"\x1f\x8b"


def content(path: str | Path, most: int = TEXT) -> bytes:
    """The bytes of a file, unpacked where gzip packed them; raises :class:`InputError` for a file that is too large or broken."""
    try:
        with Path(path).open("rb") as file:
            found = file.read(most + 1)
        if found[:2] == GZIP:
            with gzip.open(path) as packed:
                found = packed.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, ValueError) as reason:
        raise InputError(f"{path}: cannot be read: {getattr(reason, 'strerror', None) or reason}") from None
    if len(found) > most:
        raise InputError(f"{path}: is larger than {binary(most)}, which is more than a file of this kind may have")
    return found


def text(path: str | Path, most: int = TEXT) -> str:
    """The text of a file, in UTF-8 with or without a byte order mark; raises :class:`InputError` for anything else."""
    try:
        found = content(path, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: cannot be read: not UTF-8 text") from None
    if "\0" in found:
        raise InputError(f"{path}: cannot be read: has zero bytes, which no text has")
    return found
