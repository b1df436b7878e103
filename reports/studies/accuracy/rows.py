"""A table of measurements as rows: what was run, on what, and what was measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ....hardware.errors import InputError, suggestion
from ...published import FOLDER

IDENTITY = ("id", "source", "system", "accelerator", "num_accelerators", "model", "precision")
SHAPE = ("layers", "hidden", "ffn_hidden", "heads", "seq_len", "vocab")
PLAN = ("global_batch", "micro_batch", "dp", "tp", "pp", "zero_stage", "recompute")
RESULT = ("measured_metric", "measured_value", "unit")
"""Columns that a table needs, as in ``reports/published/measurements.csv``; others that stand there count as blank where they are
missing. A blank field was not published."""


class LeftOut(Exception):
    """A row that is not predicted; the message is the reason."""


@dataclass(frozen=True)
class PublishedRow:
    """One measurement; fields are text until they are asked for, so that one bad field spoils no other row."""

    fields: Mapping[str, str]

    @property
    def id(self) -> str:
        """Its name."""
        return self.text("id")

    @property
    def source(self) -> str:
        """Where it was published."""
        return self.text("source")

    def text(self, column: str) -> str:
        """A field as text; empty where it is blank."""
        return (self.fields.get(column) or "").strip()

    def number(self, column: str) -> float | None:
        """A field as a number above zero, None where it is blank; raises :class:`LeftOut` where it is something else."""
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            raise LeftOut(f'{column} is "{text}", which is no number') from None
        if not 0 < value < float("inf"):
            raise LeftOut(f"{column} is {text}; it must be above zero, and finite")
        return value

    def count(self, column: str) -> int | None:
        """A field as a whole number above zero, None where it is blank."""
        value = self.number(column)
        if value is not None and value != int(value):
            raise LeftOut(f"{column} is {self.text(column)}, which is no whole number")
        return None if value is None else int(value)

    def needed(self, column: str) -> int:
        """A whole number that the prediction cannot do without."""
        value = self.count(column)
        if value is None:
            raise LeftOut(f"{column} was not published")
        return value

    @cached_property
    def measured(self) -> float:
        """The value that was measured."""
        value = self.number("measured_value")
        if value is None:
            raise LeftOut("measured_value is blank")
        return value


def read_rows(path: str | Path | None = None) -> list[PublishedRow]:
    """The rows of a CSV file, by default the published ones; raises :class:`InputError` for a file that is no such table."""
    where = str(path) if path else "published measurements"
    text = _text(Path(path) if path else FOLDER / "measurements.csv", where)
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        found = list(reader)
    except csv.Error as reason:
        raise InputError(f"{where}: not a CSV file: {reason}") from None
    columns = [name.strip() for name in reader.fieldnames or []]
    for name in (*IDENTITY, *SHAPE, *PLAN, *RESULT):
        if name not in columns:
            raise InputError(f"{where}: column {name} is missing{suggestion(name, columns)}")
    rows = [PublishedRow({key.strip(): value for key, value in each.items() if isinstance(key, str)}) for each in found]
    if not rows:
        raise InputError(f"{where}: has no rows below its header")
    known: set[str] = set()
    for number, row in enumerate(rows, 2):
        if not row.id or row.id in known:
            found_id = f"id {row.id} stands there twice" if row.id else "id is blank"
            raise InputError(f"{where}: line {number}: {found_id}; every row needs an id of its own")
        known.add(row.id)
    return rows


def _text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"--data {where}: no such file") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(
            f"--data {where}: cannot be read: {getattr(reason, 'strerror', None) or 'not UTF-8 text'}"
        ) from None
