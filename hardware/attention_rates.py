"""What fused kernels of attention reach on an accelerator: a rate for each size of a head, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from .precisions import Precision
from .records import Record
from .units import FlopsPerSecond

HALVES: tuple[Precision, ...] = ("bf16", "fp16")
"""The formats that published rates are of; those in others are as their peaks."""

FORWARD, BACKWARD = 2, 5
"""Products of a kernel that goes forward, and of one that goes back: it works out scores once more (Dao et al. 2022)."""


def _sizes(table: Mapping[str, float]) -> Mapping[str, float]:
    """The table, once its keys are sizes of heads."""
    if not table or not all(key.isdecimal() and int(key) for key in table):
        raise ValueError('needs a rate for each of some sizes of a head, such as { 64 = "..." , 128 = "..." }')
    return table


Rates = Annotated[dict[str, FlopsPerSecond], AfterValidator(_sizes)]


class AttentionRate(Record):
    """FLOP/s of one kernel on long sequences, by elements of a head, ``forward`` and ``backward``, in half precision.

    Only FLOPs of pairs that the kernel works out count, half of them under a causal mask. Between sizes rates are interpolated;
    below the smallest they fall with the size, since exponentials bound them, of which each pair needs one. ``fill`` are the keys
    that a tile of queries costs beyond those that it meets: panels that have to come first, a diagonal that is worked out in
    whole blocks, and what comes after the last. Short sequences are slower by that.
    """

    forward: Rates
    backward: Rates
    fill: float = Field(default=0.0, ge=0)

    def rate(self, size: float, products: int) -> float:
        """FLOP/s for heads of so many elements, forward or backward by the products of a pass."""
        table = self.forward if products == FORWARD else self.backward
        sizes = sorted(int(key) for key in table)
        found = float(np.interp(size, sizes, [table[str(key)] for key in sizes]))
        return found * min(1.0, size / sizes[0])

    def slowness(self, met: float) -> float:
        """How many times as long a kernel takes whose queries meet so many keys in the mean as one with no fill."""
        return 1.0 + self.fill / max(met, 1.0)

    def both_ways(self, size: float) -> float:
        """Seconds that go into one FLOP of each product of both passes."""
        return FORWARD / self.rate(size, FORWARD) + BACKWARD / self.rate(size, BACKWARD)


def fastest(kernels: Mapping[str, AttentionRate], size: float) -> str:
    """The name of the kernel that takes least for heads of so many elements, both ways together."""
    return min(kernels, key=lambda name: kernels[name].both_ways(size))
