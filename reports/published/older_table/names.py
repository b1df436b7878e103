"""What the words of the older table name: machines, publications, models, metrics, as ``names.toml`` has them.

A text counts as a whole, or a publication by how its source begins. No text is searched for words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ....hardware.machine import CATALOGUE as MACHINES
from ....hardware.records import catalogue_names, read_toml
from ....workloads.model.model import CATALOGUE as MODELS
from .columns import Row, Unreadable

TABLE = Path(__file__).parent / "names.toml"


@dataclass(frozen=True)
class RowPlace:
    """Where a row ran: a machine of the catalogue and its changes; ``library`` is what rows of that accelerator mostly ran."""

    machine: str
    set: dict[str, Any] = field(default_factory=dict)
    ranks_per_node: int | None = None
    library: str | None = None
    assumed: str = ""


@dataclass(frozen=True)
class Publication:
    """What a publication says of all its rows; ``docs/formats/published-runs.md`` has each."""

    begins: str = ""
    library: str | None = None
    zero3_library: str | None = None
    recomputation: bool | None = None
    reading: str | None = None
    embedding: bool = True
    chunks: int | str | None = None
    fills_stages: bool = False
    selective: str = "selective"
    experts: str | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    blank: dict[str, Any] = field(default_factory=dict)
    assumed: str = ""


@lru_cache
def _table() -> dict[str, Any]:
    return read_toml(TABLE)


def word(kind: str, text: str) -> Any:
    """What a word of a column stands for; None where the table does not have it."""
    return {key.casefold(): value for key, value in _table()[kind].items()}.get(text.casefold())


def place_of(row: Row) -> RowPlace:
    """The machine of a row: its own column, its system, or its accelerator's; raises :class:`Unreadable` where there is none."""
    if name := row.text("machine"):
        if name not in catalogue_names(MACHINES):
            raise Unreadable(f"machine {name}: no such machine in the catalogue (athanor list machines)")
        return RowPlace(name)
    system, accelerator = row.text("system"), row.text("accelerator")
    for each in _table()["system"]:
        if _same(each["system"], system) and any(_same(name, accelerator) for name in each["accelerators"]):
            if "left_out" in each:
                raise Unreadable(each["left_out"])
            kind = _of_accelerator(accelerator)
            library = kind.library if kind else None
            return RowPlace(
                each["machine"], each.get("set", {}), each.get("ranks_per_node"), library, each.get("assumed", "")
            )
    found = _of_accelerator(accelerator)
    if found is None:
        told = f"system {system!r} with accelerator {accelerator!r}" if system or accelerator else "no system"
        raise Unreadable(f"{told} names no machine; a column machine may name one (athanor list machines)")
    return found


def _of_accelerator(accelerator: str) -> RowPlace | None:
    for each in _table()["accelerator"]:
        if any(_same(name, accelerator) for name in each["names"]):
            return RowPlace(
                each["machine"],
                each.get("set", {}),
                each.get("ranks_per_node"),
                each.get("library"),
                f"nodes {each['nodes']}",
            )
    return None


def publication_of(row: Row) -> Publication:
    """What is known of the publication of a row: the first whose name its source begins with; nothing, where there is none."""
    source = row.text("source").casefold()
    for each in _table()["publication"]:
        if source.startswith(each["begins"].casefold()):
            return Publication(**each)
    return Publication()


def model_named(text: str) -> str | None:
    """The catalogue's model of that name, letters and digits compared alone; None where there is none."""
    return _models().get(_letters(text)) if text else None


@lru_cache
def _models() -> dict[str, str]:
    found = {_letters(name): name for name in catalogue_names(MODELS)}
    return found | {_letters(name): model for name, model in _table()["models"].items()}


def _letters(text: str) -> str:
    return "".join(each for each in text.casefold() if each.isalnum())


def _same(one: str, other: str) -> bool:
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())
