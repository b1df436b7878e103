"""The older CSV table as rows of fields: columns that it needs, and fields as numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ....hardware.errors import InputError, suggestion

IDENTITY = ("id", "source", "system", "accelerator", "num_accelerators", "model", "precision")
SHAPE = ("layers", "hidden", "ffn_hidden", "heads", "seq_len", "vocab")
PLAN = ("global_batch", "micro_batch", "dp", "tp", "pp", "zero_stage", "recompute")
RESULT = ("measured_metric", "measured_value", "unit")
NEEDED = (*IDENTITY, *SHAPE, *PLAN, *RESULT)
"""Columns that a table needs. A blank field was not published."""

MORE = ("moe_experts", "moe_layers", "top_k", "capacity_factor", "interleave", "ep", "sequence_parallel", "confidence")
"""Columns that count as blank where a table lacks them."""

PEOPLE = ("note", "notes", "params_B", "nodes")
"""Columns that decide nothing."""


class Unreadable(Exception):
    """A row that is no record; the message says which column, and what it needs."""


@dataclass(frozen=True)
class Row:
    """One measurement; fields are text until they are asked for, so that one bad field spoils no other row."""

    fields: Mapping[str, str]

    def text(self, column: str) -> str:
        """A field as text; empty where it is blank, or its column missing."""
        return (self.fields.get(column) or "").strip()

    def number(self, column: str) -> float | None:
        """A field as a number above zero, None where it is blank; raises :class:`Unreadable` where it is something else."""
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            raise Unreadable(f'{column} is "{text}", which is no number') from None
        if not 0 < value < float("inf"):
            raise Unreadable(f"{column} is {text}; it must be above zero, and finite")
        return value

    def count(self, column: str) -> int | None:
        """A field as a whole number above zero, None where it is blank."""
        value = self.number(column)
        if value is not None and value != int(value):
            raise Unreadable(f"{column} is {self.text(column)}, which is no whole number")
        return None if value is None else int(value)

    def needed(self, column: str) -> int:
        """A whole number that a record cannot do without."""
        value = self.count(column)
        if value is None:
            raise Unreadable(f"{column} was not published")
        return value


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; raises :class:`InputError` for one that is no such table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"{path}: cannot be read: {getattr(reason, 'strerror', None) or 'not UTF-8 text'}") from None
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        found = list(reader)
    except csv.Error as reason:
        raise InputError(f"{path}: not a CSV file: {reason}") from None
    columns = [name.strip() for name in reader.fieldnames or []]
    for name in NEEDED:
        if name not in columns:
            raise InputError(f"{path}: column {name} is missing{suggestion(name, columns)}")
    if not found:
        raise InputError(f"{path}: has no rows below its header")
    known: set[str] = set()
    for number, each in enumerate(found, 2):
        name = (each.get("id") or "").strip()
        if not name or name in known:
            wrong = f"id {name} stands there twice" if name else "id is blank"
            raise InputError(f"{path}: line {number}: {wrong}; every row needs an id of its own")
        known.add(name)
    return [Row({key.strip(): value for key, value in each.items() if isinstance(key, str)}) for each in found]
