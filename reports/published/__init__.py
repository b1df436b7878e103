"""Published results, as data with their sources."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@lru_cache
def published(name: str) -> dict[str, Any]:
    """The table of one publication."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
