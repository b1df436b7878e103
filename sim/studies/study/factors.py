"""What a study varies: keys of machine, model, plan and command, and the values that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isclose, isfinite, log
from typing import Any

from ....hardware.errors import InputError, suggestion

BOUNDS = frozenset({"from", "to"})
"""Keys of a range; ``log``, ``integer``, ``step`` and ``count`` may stand beside them."""

RANGE = ("from", "to", "log", "integer", "step", "count")

MOST_VALUES = 100_000


@dataclass(frozen=True)
class Choices:
    """A factor that takes one of some values, each as likely as the others."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share of the factor's range, from 0 to 1."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def share(self, value: Any) -> float:
        """The share at which a value lies."""
        return (self.values.index(value) + 0.5) / len(self.values)


@dataclass(frozen=True)
class Range:
    """A factor that takes any number from ``low`` to ``high``, or any whole one, or any that lies ``step`` apart.

    With ``log`` each doubling is as likely as the others.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    step: float | None = None

    def at(self, share: float) -> float | int:
        """The value at a share of the factor's range, from 0 to 1."""
        if self.step or self.integer:
            step = self.step or 1
            low, count = self.low, int((self.high - self.low) / step + 1e-9) + 1
            if self.log:
                ends = log(low - step / 2), log(low + (count - 0.5) * step)
                number = int((exp(ends[0] + share * (ends[1] - ends[0])) - low) / step + 0.5)
            else:
                number = int(share * count)
            value = low + step * min(max(number, 0), count - 1)
            return round(value) if self.integer else value
        if self.log:
            return exp(log(self.low) + share * (log(self.high) - log(self.low)))
        return self.low + share * (self.high - self.low)

    def values(self, where: str, count: Any) -> tuple[float | int, ...]:
        """All values of a grid: those ``step`` apart, or ``count`` of them, ends included."""
        if count is None and not (self.step or self.integer):
            raise InputError(f"{where}: a range in a grid needs count or step")
        if count is None:
            step = self.step or 1
            number = int((self.high - self.low) / step + 1e-9) + 1
            if number > MOST_VALUES:
                raise InputError(f"{where}: {number:,} values are more than {MOST_VALUES:,}; name a larger step")
            found = [self.low + step * place for place in range(number)]
            return tuple(round(each) for each in found) if self.integer else tuple(found)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_VALUES:
            raise InputError(f"{where}.count is {count}: must be a whole number from 1 to {MOST_VALUES:,}")
        shares = [place / (count - 1) if count > 1 else 0.0 for place in range(count)]
        smooth = Range(self.low, self.high, self.log)
        found = [smooth.at(share) for share in shares]
        if self.log and count > 1:
            found[-1] = self.high
        if self.integer:
            found = list(dict.fromkeys(round(each) for each in found))
        return tuple(_tidy(each) for each in found)


Factor = Choices | Range


def _tidy(value: float | int) -> float | int:
    """A number without the dust of its logarithm."""
    near = float(f"{value:.12g}")
    return value if isinstance(value, int) else near if isclose(near, value, rel_tol=1e-11) else value


def grid_values(where: str, given: Any) -> tuple[Any, ...]:
    """The values of a key in a grid: a list, one value, or a range with ``count`` or ``step``."""
    if is_range(given):
        return _range(where, given).values(where, given.get("count"))
    values = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not values:
        raise InputError(f"{where}: is an empty list; needs at least one value")
    return tuple(values)


def factor(where: str, given: Any) -> Factor:
    """What a sample draws a key from: a list, or a range."""
    if is_range(given):
        if "count" in given:
            raise InputError(f"{where}.count: only a grid takes it; a sample has points")
        return _range(where, given)
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise InputError(f"{where} is {given}: needs a list of values, or a range such as {{ from = 1, to = 8 }}")
    return Choices(tuple(given))


def is_range(given: Any) -> bool:
    """Whether a value is a range: a table with ``from`` and ``to``."""
    return isinstance(given, Mapping) and bool(BOUNDS & set(given))


def _range(where: str, given: Mapping[str, Any]) -> Range:
    for key in given:
        if key not in RANGE:
            raise InputError(f"{where}.{key}: no such key of a range{suggestion(key, RANGE)}")
    for key in ("from", "to", "step"):
        value = given.get(key)
        if value is None and key != "step":
            raise InputError(f"{where}.{key}: is missing; needs a number")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value)):
            raise InputError(f"{where}.{key} is {value}: must be a number")
    for key in ("log", "integer"):
        if not isinstance(given.get(key, False), bool):
            raise InputError(f"{where}.{key} is {given[key]}: must be true or false")
    low, high, step, spread = given["from"], given["to"], given.get("step"), given.get("log", False)
    if not low < high:
        raise InputError(f"{where}: from = {low} must be below to = {high}")
    if step is not None and not 0 < step <= high - low:
        raise InputError(f"{where}.step is {step}: must be above 0, and no more than the range")
    if spread and low <= 0:
        raise InputError(f"{where}: log needs from above 0, found {low}")
    whole = isinstance(low, int) and isinstance(step, int) if step is not None else bool(given.get("integer", False))
    if whole and int(low) != low:
        raise InputError(f"{where}: integer needs a whole number for from, found {low}")
    return Range(low, high, spread, whole, step)
