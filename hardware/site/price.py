"""What a machine costs: its nodes by the hour, energy, and the carbon dioxide of the grid that it hangs on."""

from __future__ import annotations

from pydantic import Field, field_validator

from ..records import Record
from ..units import DollarsPerJoule, DollarsPerSecond, KilogramsPerJoule

HOURS = 24


class Price(Record):
    """``node`` is the price of a node's time, ``energy`` of energy where that does not hold it already.

    ``carbon`` is what the grid emits for each joule: one number, or 24 for the hours of a day, midnight first.
    """

    node: DollarsPerSecond = 0.0
    energy: DollarsPerJoule = 0.0
    carbon: tuple[KilogramsPerJoule, ...] = Field(min_length=1)

    @field_validator("carbon", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return value if isinstance(value, list | tuple) else (value,)

    @field_validator("carbon")
    @classmethod
    def _of_a_day(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (1, HOURS):
            raise ValueError(f"holds {len(value)} numbers; needs one, or {HOURS} for the hours of a day")
        return value

    def carbon_over(self, seconds: float, start_hour: float = 0.0) -> float:
        """Kilograms a joule, the mean over so many seconds from an hour of the day on."""
        if len(self.carbon) == 1:
            return self.carbon[0]
        days, rest = divmod(seconds / 3600.0, HOURS)
        weights = [days] * HOURS
        at, left = start_hour % HOURS, rest
        while left > 1e-12:
            hour = int(at)
            span = min(left, hour + 1 - at)
            weights[hour % HOURS] += span
            at, left = (at + span) % HOURS, left - span
        total = sum(weights)
        return sum(w * c for w, c in zip(weights, self.carbon, strict=True)) / total if total else self.carbon[0]
