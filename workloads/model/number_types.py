"""The types in which numbers of a format are kept and sent: NumPy's own, and those of ml_dtypes where NumPy has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from ...hardware.errors import InputError

NumberType = type[np.floating[Any]]

_OF_NUMPY: dict[str, NumberType] = {"fp64": np.float64, "fp32": np.float32, "fp16": np.float16}
_OF_ML_DTYPES = {"bf16": "bfloat16"}

E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"
"""Eight bits, forward and backward: up to 448 and 57,344 (Micikevicius et al. 2022, FP8 formats for deep learning, table 1)."""


class NumberTypes(Mapping[str, NumberType]):
    """Types by format. Products alone are made in fp8, with a scale for each tensor: nothing is kept in it."""

    def __getitem__(self, name: str) -> NumberType:
        """The type of a format's numbers."""
        return _OF_NUMPY[name] if name in _OF_NUMPY else beyond_numpy(_OF_ML_DTYPES[name])

    def __iter__(self) -> Iterator[str]:
        """All formats that numbers are kept in."""
        yield from (*_OF_NUMPY, *_OF_ML_DTYPES)

    def __len__(self) -> int:
        """How many there are."""
        return len(_OF_NUMPY) + len(_OF_ML_DTYPES)


TYPES = NumberTypes()


def beyond_numpy(name: str) -> NumberType:
    """A type that ml_dtypes gives NumPy; it is loaded when it is asked for."""
    try:
        found: NumberType = getattr(import_module("ml_dtypes"), name)
    except ImportError:
        raise InputError("--precision: bf16 and fp8 are computed with ml_dtypes (pip install ml_dtypes)") from None
    return found


def travelling(buffer: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same bytes as numbers that MPI knows."""
    return buffer.view(np.uint16) if buffer.dtype.name == _OF_ML_DTYPES["bf16"] else buffer
