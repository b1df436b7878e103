"""The version of this installation."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def version() -> str:
    """The version that ``pyproject.toml`` states."""
    from importlib.metadata import version as installed

    return installed("athanor")


@lru_cache
def fingerprint(*rooms: str) -> str:
    """A hash of the package's own sources: results of another program are not taken for this one's.

    Of those that a simulation uses, or of other rooms with the data that lies there.
    """
    package = Path(__file__).parent.parent
    endings = (".py", ".toml", ".csv") if rooms else (".py",)
    folders = [package / name for name in rooms or ("hardware", "workloads", "sim")]
    sources = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in endings)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def key(*inputs: Any) -> str:
    """What decides a result, the program itself included, as a short hash; what is no plain data counts by its text."""
    return hashlib.sha256(json.dumps([fingerprint(), *inputs], sort_keys=True, default=str).encode()).hexdigest()[:20]
