"""What a reproduction finds: claims, tables, figures that are drawn when asked for, and the inputs behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ....hardware.machine import Machine
from ...content.sections import ReportPart, Section
from ..claims import Claim

Progress = Callable[[str], None]


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
