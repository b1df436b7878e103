"""Records whose arrays cannot be written to, as their other fields cannot be set anew."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Value = TypeVar("Value")


class FrozenArrays:
    """A base of frozen dataclasses: their arrays are read-only from then on, wherever they are used."""

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)


def read_only(value: Value) -> Value:
    """The same value; an array cannot be written to from now on."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    return value
