"""The machine of a row: by its system, else by its accelerator."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ....hardware.machine import Machine, load_machine
from .rows import LeftOut, PublishedRow

TABLE = Path(__file__).parent / "systems.toml"

CARDS = re.compile(r"\b(\d+) ?x ?(?:(\d+) ?Gb\b|IB\b|OPA\b|EFA\b|NICs?\b)", re.IGNORECASE)
"""How a system names its nodes' network cards: how many, and perhaps their rate in Gbit/s."""

ONE_CARD = re.compile(r"\b(?:one|single|1)[- ](?:NIC|IB|card)\b", re.IGNORECASE)


@lru_cache
def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))["entry"]
    return entries


@dataclass(frozen=True)
class Entry:
    """The number of an entry of ``systems.toml``; where a row names them, a node's cards and bytes per second of each."""

    number: int
    cards: tuple[int, float | None] | None = None


def entry_of(row: PublishedRow) -> Entry:
    """The entry of ``systems.toml`` that a row belongs to; raises :class:`LeftOut` where there is none."""
    for number, entry in enumerate(_entries()):
        patterns = {column: entry[column] for column in ("system", "accelerator") if column in entry}
        if all(re.search(pattern, row.text(column), re.IGNORECASE) for column, pattern in patterns.items()):
            if "machine" not in entry:
                raise LeftOut(entry["why"])
            return Entry(number, _cards(row.text("system")))
    found = row.text("accelerator") or row.text("system")
    raise LeftOut(
        f"the catalogue has no machine with {found}" if found else "neither system nor accelerator was published"
    )


def _cards(system: str) -> tuple[int, float | None] | None:
    """The network cards that the name of a system tells."""
    if ONE_CARD.search(system):
        return 1, None
    found = CARDS.search(system)
    if not found or int(found[1]) == 0:
        return None
    return int(found[1]), float(found[2]) * 1e9 / 8 if found[2] else None


@dataclass(frozen=True)
class System:
    """A machine, how many of a row's accelerators a node has (None: its core groups), and what is to be known about it."""

    machine: Machine
    ranks_per_node: int | None
    note: str


@lru_cache
def system_of(chosen: Entry) -> System:
    """The machine of an entry."""
    entry = _entries()[chosen.number]
    machine = load_machine(entry["machine"])
    settings: dict[str, Any] = dict(entry.get("set", {}))
    if chosen.cards:
        count, rate = chosen.cards
        settings |= {"node.interfaces": count} | ({"node.interface_bandwidth": rate} if rate else {})
        node = machine.node
        if "set" not in entry and (count, rate or node.interface_bandwidth) == (
            node.interfaces,
            node.interface_bandwidth,
        ):
            settings = {}
    if settings:
        machine = machine.changed(settings)
    return System(machine, entry.get("ranks_per_node"), entry.get("note", ""))
