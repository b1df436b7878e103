"""A row of a Run's trace: one operation on one observed class of ranks."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite
from os import SEEK_END
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, overload
from weakref import finalize

from ...hardware.errors import InputError
from ..schedule.operation import Operation, Task


class TraceRow(NamedTuple):
    """What an operation is, which ranks did it when, and what held it back; ``docs/formats/trace.md`` defines each column.

    ``label`` is the operation's name without micro-batch and layer, ``ranks`` the class of ranks, ``nbytes`` the payload of an
    exchange in bytes; ``start`` and ``end`` are seconds from the start of the step.
    """

    step: int
    operation: str
    kind: str
    phase: str
    category: str
    stream: str
    collective: str
    axes: str
    level: str
    ranks: str
    start: float
    end: float
    nbytes: float
    flops: float
    limit: str
    algorithm: str
    label: str
    role: str
    part: str | None
    layer: int | None
    runs_in: str
    gradient: str | None
    micro_batch: int | None

    @classmethod
    def of(
        cls,
        operation: Operation,
        exchange: tuple[str, str, str, str],
        ranks: str,
        times: tuple[float, float],
        amounts: tuple[float, float],
        limit: str,
    ) -> TraceRow:
        """The row of an operation in step 0: (collective, axes, level, algorithm), (start, end), (bytes, FLOPs)."""
        task = operation.task
        return cls(
            0,
            operation.name,
            operation.kind,
            operation.phase,
            operation.category,
            operation.stream,
            *exchange[:3],
            ranks,
            *times,
            *amounts,
            limit,
            exchange[3],
            operation.label,
            task.role.value,
            task.part,
            task.layer,
            operation.runs_in,
            task.gradient,
            task.micro_batch,
        )

    @classmethod
    def read(cls, values: Any) -> TraceRow:
        """The row of a file, in the order of :data:`COLUMNS`; raises ``ValueError`` that says what is wrong with it."""
        if not isinstance(values, list) or len(values) != len(COLUMNS):
            found = f"{len(values)} columns" if isinstance(values, list) else "no columns"
            raise ValueError(f"has {found}, must have {len(COLUMNS)}")
        for column, value, (wanted, kind) in zip(COLUMNS, values, KINDS, strict=True):
            right = type(value) in wanted and (type(value) is not float or isfinite(value))
            if not right:
                raise ValueError(f"has {column} {value}, must be {kind}")
        return cls(*values)

    def placed(self, first_layer: int, micro_batch: int, begin: float) -> TraceRow:
        """The row of a pipeline's block where it stands in the step: in its layer and micro-batch, ``begin`` seconds later."""
        layer = None if self.layer is None else self.layer + first_layer
        task = Task(layer=layer, micro_batch=micro_batch, recomputed=self.runs_in == RECOMPUTED)
        return self._replace(
            operation=task.place + self.label,
            layer=layer,
            micro_batch=micro_batch,
            start=self.start + begin,
            end=self.end + begin,
        )


class Rows(Sequence[TraceRow]):
    """Rows of a trace that are made when somebody first asks for one: most runs are told by their totals."""

    def __init__(self, make: Callable[[], Iterable[TraceRow]]) -> None:
        self._make: Callable[[], Iterable[TraceRow]] | None = make
        self._made: list[TraceRow] = []

    @property
    def made(self) -> list[TraceRow]:
        """All of them."""
        if self._make is not None:
            self._made, self._make = list(self._make()), None
        return self._made

    @overload
    def __getitem__(self, place: int) -> TraceRow: ...

    @overload
    def __getitem__(self, place: slice) -> list[TraceRow]: ...

    def __getitem__(self, place: int | slice) -> TraceRow | list[TraceRow]:
        """A row, or a list of several."""
        return self.made[place]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.made)

    def __eq__(self, other: object) -> bool:
        """The same rows, here or in a list."""
        return isinstance(other, Rows | list) and self.made == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """As a list."""
        return repr(self.made)

    def __reduce__(self) -> tuple[type[list[TraceRow]], tuple[list[TraceRow]]]:
        """To other processes it goes as a list."""
        return list, (self.made,)


RECOMPUTED = "recomputed"


def column_of(field: str) -> str:
    """The name of a field in files and data frames, which may be a word that Python keeps for itself."""
    return {"ranks": "class", "nbytes": "bytes", "runs_in": "pass"}.get(field, field)


COLUMNS = tuple(column_of(name) for name in TraceRow._fields)
"""Names of the fields in files and data frames."""

_TEXT: tuple[tuple[type, ...], str] = ((str,), "a text")
_NUMBER: tuple[tuple[type, ...], str] = ((int, float), "a number")
_WHOLE: tuple[tuple[type, ...], str] = ((int,), "a whole number")
_MAYBE_TEXT: tuple[tuple[type, ...], str] = ((str, type(None)), "a text or null")
_MAYBE_WHOLE: tuple[tuple[type, ...], str] = ((int, type(None)), "a whole number or null")

KINDS = (
    _WHOLE,
    *[_TEXT] * 9,
    *[_NUMBER] * 4,
    *[_TEXT] * 4,
    _MAYBE_TEXT,
    _MAYBE_WHOLE,
    _TEXT,
    _MAYBE_TEXT,
    _MAYBE_WHOLE,
)
"""What each column holds in a file."""


class StoredRows(Rows):
    """Rows of many steps in a file without a name, written as steps are made: memory holds those of a step at a time.

    Raises :class:`InputError` where no file can be made in ``folder``.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(lambda: iter(self))
        try:
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the rows
        except OSError as reason:
            raise InputError(f"{folder}: no trace can be kept there: {reason.strerror}") from None
        self._close = finalize(self, self._file.close)

    def add(self, rows: Iterable[TraceRow]) -> None:
        """Write those of one more step."""
        self._file.seek(0, SEEK_END)
        pickle.dump([tuple(row) for row in rows], self._file)

    def __iter__(self) -> Iterator[TraceRow]:
        """One after another, read step by step."""
        at = 0
        while True:
            self._file.seek(at)
            try:
                rows = pickle.load(self._file)  # we wrote it
            except EOFError:
                return
            at = self._file.tell()
            yield from map(TraceRow._make, rows)
