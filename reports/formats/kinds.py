"""What an importer and an exporter are, and what a user says beside the file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ...hardware.registry import Policy

if TYPE_CHECKING:
    from ...hardware.machine import Machine
    from ...workloads.model.model import Model
    from ...workloads.plan.run_file import RunFile
    from ...workloads.results.run import Run

    Made = Model | RunFile | Machine | Run

Makes = Literal["model", "run file", "machine", "run"]

Contents = Mapping[Path, bytes | str]


def _silent(note: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Asked:
    """What a user says beside the file.

    A ``name`` for what comes of it, keys to ``ignore``, the ``machine`` that a run file is for, or whose other numbers a machine
    takes, the ``model`` of a run file, and the ``architecture`` that a model is read as. ``defined`` has what the file leaves
    open, by key; ``tell`` takes notes on what was carried otherwise than it stands.
    """

    name: str | None = None
    ignore: Collection[str] = ()
    machine: str | None = None
    model: str | None = None
    architecture: str | None = None
    defined: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[str], None] = _silent


class Importer(Policy, ABC):
    """One format that is read."""

    makes: ClassVar[Makes]

    @abstractmethod
    def read(self, path: Path, asked: Asked) -> Made:
        """What a file says; raises :class:`InputError` in one line for what it cannot carry."""


@dataclass(frozen=True)
class Wanted:
    """What a user says beside the file: where to write, and the ``machine`` and ``model`` where a run file names none.

    ``ranks`` bounds how many files of one rank each are written; ``tell`` takes notes on what could not be carried.
    """

    out: Path
    machine: str | None = None
    model: str | None = None
    ranks: int | None = None
    tell: Callable[[str], None] = _silent


class Exporter(Policy, ABC):
    """One format that is written."""

    takes: ClassVar[str]
    """What it is made of, in a few words."""

    @abstractmethod
    def files(self, source: Path, wanted: Wanted) -> Contents:
        """The content of each file by its path; raises :class:`InputError` in one line for what it cannot be made of."""
