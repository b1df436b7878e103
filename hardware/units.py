"""Units at the edge: text such as ``"51.2 GB/s"`` comes in, plain floats in SI base units go on.

Bytes, seconds, FLOPs and hertz are the base units inside. A field of a validated record is annotated with one of the
types below (``BytesPerSecond``, ``Seconds``, …); in a file such a field must carry its unit, in code a plain float in
SI will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
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

_Dimension = tuple[int, int, int]
"""Powers of information, work and time."""

_PLAIN: _Dimension = (0, 0, 0)
_UNITS: dict[str, tuple[float, _Dimension]] = {
    **dict.fromkeys(("s", "second", "seconds"), (1.0, (0, 0, 1))),
    **dict.fromkeys(("B", "byte", "bytes"), (1.0, (1, 0, 0))),
    **dict.fromkeys(("bit", "bits"), (0.125, (1, 0, 0))),
    **dict.fromkeys(("flop", "flops", "FLOP"), (1.0, (0, 1, 0))),
    "FLOPS": (1.0, (0, 1, -1)),
    **dict.fromkeys(("Hz", "hertz"), (1.0, (0, 0, -1))),
    **dict.fromkeys(("%", "percent"), (0.01, _PLAIN)),
}

_KINDS: dict[_Dimension, str] = {
    (1, 0, 0): "a size",
    (1, 0, -1): "a bandwidth",
    (0, 0, 1): "a time",
    (0, 1, -1): "a compute rate",
    (0, 0, -1): "a frequency",
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
        dimension = (
            dimension[0] + power * powers[0],
            dimension[1] + power * powers[1],
            dimension[2] + power * powers[2],
        )
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
            number = float(value)
        if not number < float("inf") or number < 0 or (number == 0 and not self.zero):
            raise ValueError(f"must be {'zero or more' if self.zero else 'above zero'}; {needed}")
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A float that is read by :meth:`read`."""
        return core_schema.with_info_plain_validator_function(self.read)

    def show(self, value: float) -> str:
        """``value`` in readable units: ``show(51.2e9)`` is ``"51.2 GB/s"`` for a bandwidth."""
        return si(value, self.symbol)


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
            number = float(text[:-1]) / 100 if text.endswith("%") else float(Fraction(text))
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
BytesPerSecond = Annotated[float, Quantity("byte / second", "a bandwidth", "51.2 GB/s", "B/s")]
FlopsPerSecond = Annotated[float, Quantity("flop / second", "a compute rate", "9.216 TFLOP/s", "FLOP/s")]
Seconds = Annotated[float, Quantity("second", "a time", "10 us", "s")]
SecondsOrZero = Annotated[float, Quantity("second", "a time", "1 us", "s", zero=True)]
Hertz = Annotated[float, Quantity("hertz", "a frequency", "2.25 GHz", "Hz")]
Ratio = Annotated[float, Share()]


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
