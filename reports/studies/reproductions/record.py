"""What a reproduction finds: claims, tables, figures that are drawn when asked for, and the inputs behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ....hardware.machine import Machine
from ...pages.html_page import Section
from ..claims import Claim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Drawing:
    """A figure that is drawn when it is written: the name of its files, and what it shows."""

    name: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class ReportPart:
    """A part of the report after the claims; its table is also ``shown`` on the terminal."""

    section: Section
    drawings: Sequence[Drawing] = ()
    shown: bool = True


@dataclass
class Reproduction:
    """All claims of a publication, and what stands beside them."""

    name: str
    title: str
    machine: Machine
    claims: list[Claim] = field(default_factory=list)
    parts: list[ReportPart] = field(default_factory=list)
    inputs: list[Section] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """Further commands that the report names."""

    def plain(self) -> dict[str, Any]:
        """Name, machine and claims as plain data; reproductions with more to tell add to it."""
        return {"name": self.name, "machine": self.machine.name, "claims": [claim.plain() for claim in self.claims]}
