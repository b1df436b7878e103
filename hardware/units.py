"""Units at the edge: text such as ``"51.2 GB/s"`` comes in, plain floats in SI base units go on.

Bytes, seconds, FLOPs, hertz, joules, kilograms and dollars are the base units inside. A field of a validated record is
annotated with one of the types below (``BytesPerSecond``, ``Seconds``, …); in a file such a field must carry its unit, in
code a plain float in SI will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from sys import float_info
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

# A table of our own: a library of all units takes a third of the time of a small simulation to load, and a machine needs these.
_PREFIXED = {
    **dict.fromkeys(("k", "kilo"), 1e3),
    **dict.fromkeys(("M", "mega"), 1e6),
    **dict.fromkeys(("G", "giga"), 1e9),
    **dict.fromkeys(("T", "tera"), 1e12),
    **dict.fromkeys(("P", "peta"), 1e15),
    **dict.fromkeys(("E", "exa"), 1e18),
    **dict.fromkeys(("Ki", "kibi"), 2.0**10),
    **dict.fromkeys(("Mi", "mebi"), 2.0**20),
    **dict.fromkeys(("Gi", "gibi"), 2.0**30),
    **dict.fromkeys(("Ti", "tebi"), 2.0**40),
    **dict.fromkeys(("m", "milli"), 1e-3),
    **dict.fromkeys(("u", "\u00b5", "\u03bc", "micro"), 1e-6),
    **dict.fromkeys(("n", "nano"), 1e-9),
    **dict.fromkeys(("p", "pico"), 1e-12),
}

MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86400.0, 31557600.0
"""Seconds; a year is a Julian one, 365.25 days."""

KILOWATT_HOUR = 3.6e6
"""Joules."""

_Dimension = tuple[int, int, int, int, int, int]
"""Powers of information, work, time, energy, mass and money."""

_PLAIN: _Dimension = (0, 0, 0, 0, 0, 0)
_TIME: _Dimension = (0, 0, 1, 0, 0, 0)
_ENERGY: _Dimension = (0, 0, 0, 1, 0, 0)
_UNITS: dict[str, tuple[float, _Dimension]] = {
    **dict.fromkeys(("s", "second", "seconds"), (1.0, _TIME)),
    **dict.fromkeys(("min", "minute", "minutes"), (MINUTE, _TIME)),
    **dict.fromkeys(("h", "hour", "hours"), (HOUR, _TIME)),
    **dict.fromkeys(("d", "day", "days"), (DAY, _TIME)),
    **dict.fromkeys(("week", "weeks"), (7 * DAY, _TIME)),
    **dict.fromkeys(("y", "year", "years"), (YEAR, _TIME)),
    **dict.fromkeys(("B", "byte", "bytes"), (1.0, (1, 0, 0, 0, 0, 0))),
    **dict.fromkeys(("bit", "bits"), (0.125, (1, 0, 0, 0, 0, 0))),
    **dict.fromkeys(("flop", "flops", "FLOP"), (1.0, (0, 1, 0, 0, 0, 0))),
    "FLOPS": (1.0, (0, 1, -1, 0, 0, 0)),
    **dict.fromkeys(("Hz", "hertz"), (1.0, (0, 0, -1, 0, 0, 0))),
    **dict.fromkeys(("J", "joule", "joules"), (1.0, _ENERGY)),
    **dict.fromkeys(("W", "watt", "watts"), (1.0, (0, 0, -1, 1, 0, 0))),
    "Wh": (HOUR, _ENERGY),
    **dict.fromkeys(("g", "gram", "grams"), (1e-3, (0, 0, 0, 0, 1, 0))),
    "USD": (1.0, (0, 0, 0, 0, 0, 1)),
    **dict.fromkeys(("%", "percent"), (0.01, _PLAIN)),
}

_KINDS: dict[_Dimension, str] = {
    (1, 0, 0, 0, 0, 0): "a size",
    (1, 0, -1, 0, 0, 0): "a bandwidth",
    _TIME: "a time",
    (0, 1, -1, 0, 0, 0): "a compute rate",
    (0, 0, -1, 0, 0, 0): "a frequency",
    _ENERGY: "an energy",
    (0, 0, -1, 1, 0, 0): "a power",
    _PLAIN: "a plain number",
}

_FACTOR = re.compile(
    r"\s*(?P<how>[*/]|per\b|)\s*(?:(?P<number>[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<unit>[^\W\d_]+|%))"
    r"(?:\s*(?:\*\*|\^)\s*(?P<power>-?\d+))?\s*"
)


def parse(text: str, unit: str) -> float:
    """The number of ``unit`` (such as ``"byte / second"``) that ``text`` stands for.

    A text is a product of numbers and units, joined by blanks, ``*`` or ``/``: ``"51.2 GB/s"``, ``"4 * 25 GB/s"``. Raises
    ``ValueError`` with a reason in one clause when the text is no quantity or one of another kind.
    """
    try:
        amount, found = _product(text.replace(",", ""))
    except (KeyError, OverflowError, ValueError, ZeroDivisionError):
        raise ValueError(f'"{text}" is no quantity') from None
    factor, wanted = _product(unit)
    if found != wanted:
        raise ValueError(f'"{text}" is {_KINDS.get(found, "a quantity of another kind")}')
    return amount / factor


def _product(text: str) -> tuple[float, _Dimension]:
    """Amount in base units, and dimension; raises ``KeyError`` or ``ValueError`` for what is no product of numbers and units."""
    amount, dimension, at = 1.0, _PLAIN, 0
    while at < len(text) or not at:
        part = _FACTOR.match(text, at)
        if not part or (part["how"] and not at):
            raise ValueError(text)
        each, powers = (float(part["number"]), _PLAIN) if part["number"] else _unit(part["unit"])
        power = int(part["power"] or 1) * (-1 if part["how"] in ("/", "per") else 1)
        amount = amount / each**-power if power < 0 else amount * each**power
        dimension = tuple(before + power * each for before, each in zip(dimension, powers, strict=True))  # type: ignore[assignment]
        at = part.end()
    return amount, dimension


def _unit(name: str) -> tuple[float, _Dimension]:
    """One unit, with or without a prefix; raises ``KeyError`` for an unknown one."""
    if name in _UNITS:
        return _UNITS[name]
    for prefix, factor in _PREFIXED.items():
        if name.startswith(prefix) and name != prefix and (rest := name[len(prefix) :]) in _UNITS:
            size, powers = _UNITS[rest]
            return factor * size, powers
    raise KeyError(name)


@dataclass(frozen=True)
class Quantity:
    """Annotation of a float field: its SI unit, how users call it, and an example of the text that a file holds."""

    unit: str
    kind: str
    example: str
    symbol: str
    zero: bool = False

    def read(self, value: Any, info: ValidationInfo) -> float:
        """The SI value of a field's text (or, outside files, number); raises ``ValueError`` with the reason."""
        needed = f'needs {self.kind} such as "{self.example}"'
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(needed)
        if isinstance(value, str):
            try:
                number = parse(value, self.unit)
            except ValueError as reason:
                raise ValueError(f"{reason}; {needed}") from None
        elif (info.context or {}).get("units_required"):
            raise ValueError(f"has no unit; {needed}")
        else:
            number = float(value) if abs(value) < float_info.max else float("inf")
        if not number < float("inf") or number < 0 or (number == 0 and not self.zero):
            raise ValueError(f"must be {'zero or more' if self.zero else 'above zero'}; {needed}")
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A float that is read by :meth:`read`."""
        return core_schema.with_info_plain_validator_function(self.read)

    def show(self, value: float, digits: int = 4) -> str:
        """``value`` in readable units: ``show(51.2e9)`` is ``"51.2 GB/s"`` for a bandwidth."""
        return si(value, self.symbol, digits)


@dataclass(frozen=True)
class Customary(Quantity):
    """The same, shown in units that people use: each with its size in SI units, the largest first."""

    units: tuple[tuple[float, str], ...] = ()

    def show(self, value: float, digits: int = 4) -> str:
        """``value`` in the largest unit of which it has one: ``show(5400.0)`` is ``"1.5 h"``."""
        size, name = next((each for each in self.units if value >= each[0]), self.units[-1])
        return f"{value / size:.{digits}g} {name}"


@dataclass(frozen=True)
class Share:
    """Annotation of a float in (0, 1]: written as ``"3/16"``, ``"30 %"`` or a number."""

    example: str = "3/16"

    def read(self, value: Any) -> float:
        """The share as a float; raises ``ValueError`` outside (0, 1]."""
        needed = f'must lie in (0, 1], such as "{self.example}"'
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(needed)
        try:
            text = str(value).strip()
            upper, _, lower = text.partition("/")
            number = float(text[:-1]) / 100 if text.endswith("%") else float(upper) / float(lower or 1)
        except (ValueError, ZeroDivisionError):
            raise ValueError(needed) from None
        if not 0 < number <= 1:
            raise ValueError(needed)
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A float that is read by :meth:`read`."""
        return core_schema.no_info_plain_validator_function(self.read)

    def show(self, value: float) -> str:
        """The share as a fraction where it is one of halves, quarters, …, else as a number."""
        sixteenths = Fraction(value).limit_denominator(16)
        binary = sixteenths.denominator in (2, 4, 8, 16) and float(sixteenths) == value
        return str(sixteenths) if binary else f"{value:.4g}"


Bytes = Annotated[float, Quantity("byte", "a size", "16 GB", "B")]
BytesOrZero = Annotated[float, Quantity("byte", "a size", "64 KiB", "B", zero=True)]
BytesPerSecond = Annotated[float, Quantity("byte / second", "a bandwidth", "51.2 GB/s", "B/s")]
FlopsPerSecond = Annotated[float, Quantity("flop / second", "a compute rate", "9.216 TFLOP/s", "FLOP/s")]
Seconds = Annotated[float, Quantity("second", "a time", "10 us", "s")]
SecondsOrZero = Annotated[float, Quantity("second", "a time", "1 us", "s", zero=True)]
Hertz = Annotated[float, Quantity("hertz", "a frequency", "2.25 GHz", "Hz")]
Ratio = Annotated[float, Share()]

_SPANS = ((YEAR, "y"), (DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1.0, "s"))
_PER_HOUR, _PER_KILOWATT_HOUR = 1 / HOUR, 1 / KILOWATT_HOUR
Duration = Annotated[float, Customary("second", "a time", "5 y", "s", units=_SPANS)]
DurationOrZero = Annotated[float, Customary("second", "a time", "10 min", "s", zero=True, units=_SPANS)]
Watts = Annotated[float, Quantity("joule / second", "a power", "400 W", "W")]
WattsOrZero = Annotated[float, Quantity("joule / second", "a power", "50 W", "W", zero=True)]
DollarsPerSecond = Annotated[
    float,
    Customary("USD / second", "a price of time", "2.5 USD/h", "USD/s", zero=True, units=((_PER_HOUR, "USD/h"),)),
]
DollarsPerJoule = Annotated[
    float,
    Customary(
        "USD / joule", "a price of energy", "0.08 USD/kWh", "USD/J", zero=True, units=((_PER_KILOWATT_HOUR, "USD/kWh"),)
    ),
]
KilogramsPerJoule = Annotated[
    float,
    Customary(
        "kilogram / joule", "an intensity", "0.4 kg/kWh", "kg/J", zero=True, units=((_PER_KILOWATT_HOUR, "kg/kWh"),)
    ),
]


def read_duration(text: str) -> float:
    """Seconds of a time with its unit, such as ``"5y"`` or ``"90 min"``; raises ``ValueError`` that says what is wrong."""
    needed = 'needs a time such as "3h", "10 min" or "5y"'
    try:
        seconds = parse(text, "second")
    except ValueError as reason:
        raise ValueError(f"{reason}; {needed}") from None
    if not 0 < seconds < float("inf"):
        raise ValueError(f"must be above zero, and finite; {needed}")
    return seconds


def duration(seconds: float, digits: int = 3) -> str:
    """A time as people say it: ``duration(5400.0)`` is ``"1.5 h"``."""
    if seconds < 1.0:
        return si(seconds, "s", digits)
    return Customary("second", "a time", "5 y", "s", units=_SPANS).show(seconds, digits)


def read_bytes(text: str) -> float:
    """Bytes of a plain number or of a size with its unit, such as ``"1 MiB"``; raises ``ValueError`` that says what is wrong."""
    needed = 'needs a size such as "1 MiB", or a number of bytes'
    try:
        nbytes = float(text)
    except ValueError:
        try:
            nbytes = parse(text, "byte")
        except ValueError as reason:
            raise ValueError(f"{reason}; {needed}") from None
    if not 1 <= nbytes < float("inf"):
        raise ValueError(f"must be one byte or more, and finite; {needed}")
    return nbytes


def binary(nbytes: float) -> str:
    """Whole KiB, MiB or GiB as such, else bytes with an SI prefix: ``binary(65536)`` is ``"64 KiB"``."""
    for exponent, prefix in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
        if nbytes >= 1 << exponent and nbytes % (1 << exponent) == 0:
            return f"{nbytes / (1 << exponent):,.0f} {prefix}B"
    return si(nbytes, "B")


_PREFIXES = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]
_SMALL = [(1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p")]


def si(value: float, unit: str, digits: int = 4) -> str:
    """``value`` with an SI prefix: ``si(1.18e18, "FLOP/s")`` is ``"1.18 EFLOP/s"``."""
    if value == 0:
        return f"0 {unit}"
    for size, prefix in _SMALL if abs(value) < 1 else _PREFIXES:
        if abs(value) >= size * (1 - 1e-12):
            return f"{value / size:.{digits}g} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"
