"""What a machine draws: a node by what it does, its share of the switches, the building; and what a power cap does."""

from __future__ import annotations

from pydantic import Field, model_validator

from ..records import Record
from ..units import Watts, WattsOrZero

EXPONENT = 3.0
"""Power above idle goes with this power of the frequency: switching takes f V^2, and voltage follows frequency."""

SLOWEST = 0.2
"""The lowest frequency that a cap can force, as a share of the usual one."""


class Power(Record):
    """Watts of a node, all that is in it, while it does one thing: the mean over a span of that state.

    ``idle`` waits; ``compute`` is bound by arithmetic and ``memory`` by bandwidth; ``communication`` sends and receives, and
    ``checkpoint`` writes one. ``switches`` is the node's share of the network's. ``pue`` is what the building draws for each
    watt of the machine.
    """

    idle: Watts
    compute: Watts
    memory: Watts
    communication: Watts
    checkpoint: Watts
    switches: WattsOrZero = 0.0
    pue: float = Field(default=1.0, ge=1)

    @model_validator(mode="after")
    def _idle_is_least(self) -> Power:
        for state in ("compute", "memory", "communication", "checkpoint"):
            if getattr(self, state) < self.idle:
                raise ValueError(f"{state} = {getattr(self, state):g} W is below idle = {self.idle:g} W")
        return self

    def frequency_under(self, cap: float) -> float:
        """The share of its frequency at which a node that computes draws no more than ``cap`` watts; 1 where it needs no cap.

        P = idle + (compute - idle) f^3. Raises ``ValueError`` for a cap that no frequency keeps.
        """
        if cap >= self.compute:
            return 1.0
        share = (cap - self.idle) / (self.compute - self.idle)
        frequency = share ** (1 / EXPONENT) if share > 0 else 0.0
        if frequency < SLOWEST:
            least = self.idle + (self.compute - self.idle) * SLOWEST**EXPONENT
            raise ValueError(f"a node that computes draws {least:.4g} W at least, and {self.idle:.4g} W when idle")
        return frequency

    def capped(self, cap: float) -> Power:
        """The same nodes at the frequency that a cap forces: what is bound by arithmetic or memory draws less."""
        share = self.frequency_under(cap) ** EXPONENT
        lower = {state: self.idle + (getattr(self, state) - self.idle) * share for state in ("compute", "memory")}
        return self.model_copy(update=lower)
