"""What was published or follows by arithmetic, beside what Athanor computes: one claim a line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["arithmetic", "contradiction", "fitted", "predicted"]

KINDS: dict[Kind, str] = {
    "arithmetic": "follows from definitions and the machine's own figures",
    "contradiction": "a figure that the source, or another one, contradicts: the error says by how much",
    "fitted": "a constant was fitted to this very figure: it proves only that one set of constants can meet all of them",
    "predicted": "no fit has looked at it",
}
"""How Athanor comes by a claim."""


@dataclass(frozen=True)
class Claim:
    """A target, what Athanor says, and how it comes by it: :data:`KINDS`. Both sides of a yes-or-no claim are truths."""

    name: str
    target: float | bool
    simulated: float | bool
    kind: Kind
    source: str

    @property
    def relative_error(self) -> float:
        """(simulated - target) / target; 0 where both are 0, or both the same truth."""
        if self.simulated == self.target:
            return 0.0
        return (self.simulated - self.target) / self.target if self.target else float(self.simulated)

    @property
    def yes_or_no(self) -> bool:
        """Whether it claims that something is so, or is not."""
        return isinstance(self.target, bool)

    def plain(self) -> dict[str, Any]:
        """The claim as plain data."""
        return {**asdict(self), "relative_error": self.relative_error}
