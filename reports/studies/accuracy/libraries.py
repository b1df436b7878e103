"""What a row's software did that no column tells: the library of its time, as its documentation describes it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .rows import PublishedRow

TABLE = Path(__file__).parent / "libraries.toml"


@dataclass(frozen=True)
class Library:
    """How a library runs a step where a row does not say; ``set`` are keys of the machine file that are the library's.

    ``chunks`` of a stage: 0 for one layer each. ``fills_stages``: as many micro-batches as stages.
    ``framework`` is what memory is counted by.
    """

    name: str
    where: dict[str, str]
    attention: str
    overlap: str
    source: str
    tensor_overlap: bool = False
    selective: str = "selective"
    chunks: int = 1
    fills_stages: bool = False
    framework: str | None = None
    set: dict[str, Any] = field(default_factory=dict)

    @property
    def assumed(self) -> str:
        """What a prediction says of it."""
        found = [f"{self.attention} attention"]
        found += ["gradients overlapped"] if self.overlap != "none" else []
        found += ["gathers of weights overlapped"] if self.overlap == "all" else []
        return f"{self.name}: {', '.join(found)}"


def library_of(row: PublishedRow) -> Library:
    """The first library all of whose patterns are found in the row."""
    for each in libraries():
        if all(re.search(pattern, row.text(column), re.IGNORECASE) for column, pattern in each.where.items()):
            return each
    raise AssertionError("the last library has no patterns")


@lru_cache
def libraries() -> tuple[Library, ...]:
    """All of them, in the order in which they are tried."""
    return tuple(Library(**each) for each in tomllib.loads(TABLE.read_text(encoding="utf-8"))["library"])
