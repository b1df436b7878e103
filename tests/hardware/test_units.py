"""Text with units: what pint makes of it, for every quantity that the catalogue has and for any other product of units."""

import re

import pint
import pytest
from athanor.hardware.machine import CATALOGUE
from athanor.hardware.units import parse
from hypothesis import given
from hypothesis import strategies as st

UNITS = (
    "byte",
    "byte / second",
    "second",
    "flop / second",
    "hertz",
    "joule / second",
    "kilogram / joule",
    "USD / second",
)
DEFINITIONS = """
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
minute = 60 second = min
hour = 3600 second = h
day = 86400 second = d
week = 7 day
year = 365.25 day = y
joule = [energy] = J
watt = joule / second = W
Wh = 3600 joule
gram = [mass] = g
kilogram = 1000 gram
USD = [money]
byte = [information] = B
flop = [work] = FLOP
bit = byte / 8
hertz = 1 / second = Hz
FLOPS = flop / second
percent = 0.01 = %
"""
QUOTED = sorted(
    {text for path in CATALOGUE.glob("*.toml") for text in re.findall(r'"([\d.]+ ?[^"\n]{1,20})"', path.read_text())}
)


@pytest.fixture(scope="module")
def oracle():
    """pint, with these units alone."""
    registry = pint.UnitRegistry(None)
    for line in DEFINITIONS.strip().splitlines():
        registry.define(line)

    def read(text, unit):
        try:
            return float(registry.Quantity(text).to(unit).magnitude)
        except Exception:
            return None

    return read


def ours(text, unit):
    try:
        return parse(text, unit)
    except ValueError:
        return None


def assert_alike(found, expected):
    """The same number but for rounding, or both none."""
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found == pytest.approx(expected, rel=1e-12)


def test_every_quantity_of_the_catalogue(oracle):
    found = [(text, unit) for text in QUOTED for unit in UNITS if ours(text, unit) is not None]
    assert len(found) > 50
    for text in QUOTED:
        for unit in UNITS:
            assert_alike(ours(text, unit), oracle(text, unit))


PREFIXES = ("", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "m", "u", "n", "kilo", "mebi")
NAMES = (
    "s",
    "B",
    "bit",
    "FLOP",
    "Hz",
    "byte",
    "second",
    "seconds",
    "bytes",
    "h",
    "day",
    "W",
    "Wh",
    "g",
    "USD",
    "xyz",
    "%",
)


@given(
    number=st.sampled_from(["1", "51.2", "1e3", "0.5", ".25", "1_000", "2,048", "3 *"])
    | st.integers(1, 10**6).map(str),
    factors=st.lists(
        st.tuples(
            st.sampled_from([" ", "/", " / ", "*", " * "]),
            st.sampled_from(PREFIXES),
            st.sampled_from(NAMES),
            st.sampled_from(["", "", "", "**2", "^2"]),
        ),
        max_size=3,
    ),
    unit=st.sampled_from(UNITS),
)
def test_any_product_of_units(oracle, number, factors, unit):
    text = number + "".join("".join(each) for each in factors)
    assert_alike(ours(text, unit), oracle(text, unit))


@pytest.mark.parametrize(
    "text", ["", " ", "GB/s/", "/ 5 GB", "5 GB +", "5 GB!", "five GB", "5 GB 0/", "1/0 GB", "nan s", "inf GB"]
)
def test_what_is_no_quantity_is_said(text):
    with pytest.raises(ValueError, match="is no quantity"):
        parse(text, "byte")
