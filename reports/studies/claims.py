"""What was published or follows by arithmetic, beside what Athanor computes: one claim a line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["exact", "fitted", "predicted"]


@dataclass(frozen=True)
class Claim:
    """A target, what Athanor says, and how it comes by it.

    ``exact``: follows from definitions and the machine's own figures; ``fitted``: a constant was fitted to this very target;
    ``predicted``: none was. Truths are 1, falsehoods 0.
    """

    name: str
    target: float
    simulated: float
    kind: Kind
    source: str

    @property
    def relative_error(self) -> float:
        """(simulated - target) / target; 0 where both are 0."""
        if self.simulated == self.target:
            return 0.0
        return (self.simulated - self.target) / self.target if self.target else float(self.simulated)

    def plain(self) -> dict[str, Any]:
        """The claim as plain data."""
        return {**asdict(self), "relative_error": self.relative_error}
