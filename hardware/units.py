"""Units at the edge: text such as ``"51.2 GB/s"`` comes in, plain floats in SI base units go on.

Bytes, seconds, FLOPs and hertz are the base units inside. A field of a validated record is annotated with one of the
types below (``BytesPerSecond``, ``Seconds``, …); in a file such a field must carry its unit, in code a plain float in
SI will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    import pint

# Pint's own table holds a thousand units and takes 0.15 s to read; a machine of this kind needs these.
_DEFINITIONS = """
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
exa- = 1e18 = E-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
tebi- = 1099511627776 = Ti-
milli- = 1e-3 = m-
micro- = 1e-6 = u- = µ-
nano- = 1e-9 = n-
pico- = 1e-12 = p-
second = [time] = s
byte = [information] = B
flop = [work] = FLOP
bit = byte / 8
hertz = 1 / second = Hz
FLOPS = flop / second
percent = 0.01 = %
"""

_KINDS = {
    "[information]": "a size",
    "[information] / [time]": "a bandwidth",
    "[time]": "a time",
    "[work] / [time]": "a compute rate",
    "1 / [time]": "a frequency",
    "dimensionless": "a plain number",
}


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry[Any]:
    import pint

    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(None)
    for line in _DEFINITIONS.strip().splitlines():
        registry.define(line)
    return registry


def parse(text: str, unit: str) -> float:
    """The number of ``unit`` (such as ``"byte / second"``) that ``text`` stands for.

    Raises ``ValueError`` with a reason in one clause when the text is no quantity or one of another kind.
    """
    import pint

    try:
        quantity: Any = _registry().Quantity(text)
        return float(quantity.to(unit).magnitude)
    except pint.DimensionalityError:
        found = _KINDS.get(str(quantity.dimensionality), "a quantity of another kind")
        raise ValueError(f'"{text}" is {found}') from None
    except Exception:  # pint's parser lets tokenizer and arithmetic errors through
        raise ValueError(f'"{text}" is no quantity') from None


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
