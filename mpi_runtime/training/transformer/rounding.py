"""Rounding to the formats that parts of a model compute in: numbers are kept in single, with the digits of the format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....hardware.precisions import BYTES, Precision
from ....workloads.model.number_types import E4M3, E5M2, TYPES, beyond_numpy
from ....workloads.model.precision import Formats, Part

Array = NDArray[Any]

LARGEST = {E4M3: 448.0, E5M2: 57344.0}
"""The largest numbers of eight bits."""


@dataclass(frozen=True)
class Rounded:
    """Brings numbers to the format of a part of the model; by itself leaves them as they are.

    ``compute`` is that of activations, ``product`` that in which products with weights take both of theirs, where it is shorter.
    """

    compute: Precision | None = None
    product: Precision | None = None

    def __call__(self, values: Array) -> Array:
        """As the format has them: of halves nothing below 6e-8, infinity above 65,504; of bf16 the range of singles."""
        if self.compute is None:
            return values
        result: Array = values.astype(TYPES[self.compute]).astype(values.dtype)
        return result

    def operand(self, values: Array) -> Array:
        """Activations or weights, as a product takes them."""
        values = self(values)
        return values if self.product is None else in_eight_bits(values, E4M3)

    def gradient(self, values: Array) -> Array:
        """Gradients of a product's results, as its own gradients take them."""
        values = self(values)
        return values if self.product is None else in_eight_bits(values, E5M2)


def in_eight_bits(values: Array, kind: str) -> Array:
    """Numbers with the digits of eight bits, at a scale that brings the largest of the tensor to the largest of the format.

    Source: Micikevicius et al. 2022, section 3.2; Transformer Engine calls it current scaling.
    """
    largest = np.abs(values).max(initial=0.0)
    if largest == 0 or not np.isfinite(largest):
        return values
    scale = values.dtype.type(LARGEST[kind] / float(largest))
    result: Array = (values * scale).astype(beyond_numpy(kind)).astype(values.dtype) / scale
    return result


exact, half = Rounded(), Rounded("fp16")


def no_rounding(part: Part) -> Rounded:
    """Whatever the formats."""
    return exact


def rounding(formats: Mapping[Part, Formats]) -> Callable[[Part], Rounded]:
    """How each part of a model rounds what it computes."""
    found = {
        part: Rounded(each.compute if BYTES[each.compute] < BYTES["fp32"] else None, each.product)
        for part, each in formats.items()
    }
    return found.__getitem__
