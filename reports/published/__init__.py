"""Published results, as data with their sources."""

from __future__ import annotations

import csv
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@lru_cache
def published(name: str) -> dict[str, Any]:
    """The table of one publication."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@lru_cache
def measurements() -> dict[str, dict[str, str]]:
    """Published measurements by ``id``: a row each, with the configuration that was measured, value, unit and source."""
    with (FOLDER / "measurements.csv").open(encoding="utf-8", newline="") as lines:
        return {row["id"]: row for row in csv.DictReader(lines)}
