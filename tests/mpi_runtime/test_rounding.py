"""Formats that NumPy lacks, held to tables that are made from their definitions: signs, exponents, digits, what is special."""

from bisect import bisect_right
from fractions import Fraction

import numpy as np
import pytest
from athanor.mpi_runtime.training.checks import tolerance_of
from athanor.mpi_runtime.training.transformer.products import Product
from athanor.mpi_runtime.training.transformer.rounding import LARGEST, Rounded, exact, in_eight_bits, rounding
from athanor.mpi_runtime.training.transformer.weights.shards import Place
from athanor.workloads.model.number_types import E4M3, E5M2, TYPES, beyond_numpy, travelling
from athanor.workloads.model.precision import POLICIES

DEFINED = {"bf16": (8, 7), E4M3: (4, 3), E5M2: (5, 2)}
"""Bits of exponent and digits."""


def numbers(exponent, digits, largest):
    """All finite numbers of a format from 0 on, as fractions, in their order; the last is the largest."""
    bias, found = 2 ** (exponent - 1) - 1, []
    for code in range(2 ** (exponent + digits)):
        power, rest = code >> digits, code & (2**digits - 1)
        found.append(
            Fraction(rest, 2**digits) * Fraction(2) ** (1 - bias)
            if power == 0
            else (1 + Fraction(rest, 2**digits)) * Fraction(2) ** (power - bias)
        )
    return [each for each in found if each <= largest]


def nearest(value, table):
    """The nearest number of a table, of two the one with an even code."""
    low = bisect_right(table, value) - 1  # fractions and floats compare exactly
    high = min(low + 1, len(table) - 1)
    below, above = Fraction(value) - table[low], table[high] - Fraction(value)
    if below == above:
        return table[low + low % 2]
    return table[low] if below < above else table[high]


@pytest.mark.parametrize("name", DEFINED)
def test_numbers_are_rounded_to_the_nearest_of_the_table_and_ties_to_even(name):
    """Every number of eight bits, every 61st of bf16, what lies halfway behind it, and others by chance; of both signs."""
    kind = TYPES["bf16"] if name == "bf16" else beyond_numpy(name)
    largest = LARGEST.get(name, float(np.finfo(np.float32).max))
    table = numbers(*DEFINED[name], Fraction(largest))
    places = range(0, len(table) - 1, 61 if name == "bf16" else 1)
    values = [float(table[at]) for at in places] + [float((table[at] + table[at + 1]) / 2) for at in places]
    random = np.random.default_rng(1)
    values += list(np.exp(random.uniform(-20, 20 if name == "bf16" else 5, 300)))
    with np.errstate(under="ignore"):
        singles = np.array(values, dtype=np.float32)
    singles = singles[np.isfinite(singles) & (singles.astype(np.float64) <= float(table[-1]))]
    expected = np.array([float(nearest(float(each), table)) for each in singles])
    for sign in (1, -1):
        found = (sign * singles).astype(kind).astype(np.float64)
        np.testing.assert_array_equal(found, sign * expected)


def test_numbers_in_eight_bits_take_the_whole_range_of_the_format():
    """At a scale for each tensor: within half a unit of the last digit, whatever its size; the largest number stays."""
    values = np.random.default_rng(2).standard_normal(4000).astype(np.float32)
    for kind, digits in ((E4M3, 3), (E5M2, 2)):
        for size in (1e-12, 1.0, 1e12):
            scaled = (size * values).astype(np.float32)
            found = in_eight_bits(scaled, kind)
            assert found.dtype == np.float32
            largest = np.abs(scaled).argmax()
            assert found[largest] == pytest.approx(scaled[largest], rel=1e-6)
            normal = np.abs(scaled) > np.abs(scaled).max() / (2**7 if kind == E4M3 else 2**14)
            off = np.abs(found / scaled - 1)[normal]
            assert 2.0 ** -(digits + 2) < off.max() <= 2.0 ** -(digits + 1) * (1 + 1e-6)
    assert (in_eight_bits(np.zeros(3, np.float32), E4M3) == 0).all()


def test_products_with_weights_take_eight_bits_and_gates_do_not():
    """Forward in E4M3, gradients in E5M2; results are bf16."""
    random = np.random.default_rng(3)
    rows, weight, back = (random.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (4, 3), (5, 3)))
    rounded, total = rounding(POLICIES["fp8"])("ffn"), np.zeros((4, 3), np.float32)
    brain = rounded(weight)
    assert rounded.product == "fp8" and (brain == weight.astype(TYPES["bf16"]).astype(np.float32)).all()
    product = Product(Place(), lambda: weight, lambda: total, lambda: rows, lambda: back, rounded)
    for gradient in (None, "input", "weight"):
        product.compute(gradient, 0)
    a, b = in_eight_bits(rounded(rows), E4M3), in_eight_bits(brain, E4M3)
    c = in_eight_bits(rounded(back), E5M2)
    assert (product.c == rounded(a @ b)).all() and (product.da == rounded(c @ b.T)).all() and (total == a.T @ c).all()
    gate = Product(Place(), lambda: weight, lambda: total, lambda: rows, lambda: back, rounded, shortens=False)
    gate.compute(None, 0)
    assert (gate.c == rounded(rounded(rows) @ brain)).all() and (gate.c != product.c).any()


def test_what_is_kept_in_bf16_takes_two_bytes_and_travels_as_such():
    values = np.arange(6, dtype=np.float32).astype(TYPES["bf16"])
    assert values.itemsize == 2 and travelling(values).dtype == np.uint16 and travelling(values).base is values
    assert tolerance_of(values.dtype) > tolerance_of(np.dtype(np.float16)) > tolerance_of(np.dtype(np.float32))
    assert sorted(TYPES) == ["bf16", "fp16", "fp32", "fp64"] and len(TYPES) == 4
    assert exact(values) is values and Rounded("bf16")(np.float32([1 + 2**-9]))[0] == 1
