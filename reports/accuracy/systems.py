"""The machine of a row: by its system, else by its accelerator."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...hardware.machine import Machine, load_machine
from .rows import LeftOut, Row

TABLE = Path(__file__).parent / "systems.toml"


@lru_cache
def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))["entry"]
    return entries


def entry_of(row: Row) -> int:
    """The number of the entry of ``systems.toml`` that a row belongs to; raises :class:`LeftOut` where there is none."""
    for number, entry in enumerate(_entries()):
        patterns = {column: entry[column] for column in ("system", "accelerator") if column in entry}
        if all(re.search(pattern, row.text(column), re.IGNORECASE) for column, pattern in patterns.items()):
            if "machine" not in entry:
                raise LeftOut(entry["why"])
            return number
    found = row.text("accelerator") or row.text("system")
    raise LeftOut(
        f"the catalogue has no machine with {found}" if found else "neither system nor accelerator was published"
    )


@dataclass(frozen=True)
class System:
    """A machine, how many of a row's accelerators a node has (None: its core groups), and what is to be known about it."""

    machine: Machine
    ranks_per_node: int | None
    note: str


@lru_cache
def system_of(number: int) -> System:
    """The machine of an entry."""
    entry = _entries()[number]
    machine = load_machine(entry["machine"])
    if "set" in entry:
        machine = machine.changed(entry["set"])
    return System(machine, entry.get("ranks_per_node"), entry.get("note", ""))
