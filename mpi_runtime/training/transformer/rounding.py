"""Rounding to the formats that parts of a model compute in: numbers are kept in single, with the digits of the format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....workloads.model.precision import Formats, Part

Array = NDArray[Any]
Rounded = Callable[[Array], Array]
"""Numbers as a format has them."""


def exact(values: Array) -> Array:
    """As they are."""
    return values


def half(values: Array) -> Array:
    """As NumPy's halves: below 6e-8 there is nothing, above 65,504 infinity."""
    result: Array = values.astype(np.float16).astype(values.dtype)
    return result


def no_rounding(part: Part) -> Rounded:
    """Whatever the formats."""
    return exact


def rounding(formats: Mapping[Part, Formats]) -> Callable[[Part], Rounded]:
    """How each part of a model rounds what it computes."""
    return lambda part: half if formats[part].compute == "fp16" else exact
