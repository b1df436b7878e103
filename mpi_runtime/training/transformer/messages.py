"""What a rank gives to an exchange of a dense strategy, and what it does with what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Message:
    """One rank's side of an exchange among the ranks along ``axes``.

    ``take`` gets the result. Shapes, with n members in row-major order of the axes:

    - all-reduce, shift: payload and result are alike;
    - broadcast: the same; only the payload of member ``root`` counts;
    - reduce: the same; only member ``root`` gets a result;
    - all-gather: the result is ``[n, …]``;
    - reduce-scatter: the payload is ``[n, …]``, the result this member's part.

    ``combine`` is what a reduction does with two payloads, along the last dimension as a whole.
    """

    operation: str
    axes: tuple[str, ...]
    payload: Array
    take: Callable[[Array], None]
    root: int = 0
    combine: Callable[[Array, Array], Array] = np.add
