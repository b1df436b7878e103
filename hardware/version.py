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


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """A hash of the package's own sources: results of another program are not taken for this one's."""
    package = Path(__file__).parent.parent
    folders = [package / name for name in ("hardware", "workloads", "sim")]
    sources = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def key(*inputs: Any) -> str:
    """What decides a result, the program itself included, as a short hash; what is no plain data counts by its text."""
    return hashlib.sha256(json.dumps([fingerprint(), *inputs], sort_keys=True, default=str).encode()).hexdigest()[:20]
