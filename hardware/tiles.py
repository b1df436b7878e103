"""Products on an accelerator whose multiprocessors each work on one tile of C at a time, as GPUs do."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from .precisions import BYTES, Precision
from .records import Record
from .units import BytesPerSecond, Ratio

Array = NDArray[np.float64]

SPLITS = (2, 4, 8)
"""Into how many parts of its depth a product may be cut, where it has fewer tiles than there are multiprocessors."""

STREAMS = 4
"""Launches of products that run at once where each has one of its own (Transformer Engine's grouped linear layers)."""

Side = Annotated[int, Field(gt=0)]


class Tiles(Record):
    """How a GPU's library runs C[m, n] = A[m, k] B[k, n]: C is cut into tiles, and the multiprocessors take them in waves.

    A tile of one of the ``shapes`` (rows, columns) is worked on by one multiprocessor, ``fill`` steps of depth longer than
    its own k: the first panels have to come, and C has to go. Each step takes as long as its FLOPs at the share of the peak
    that the kernel reaches, or as its panels need from the second-level cache (``cache_bandwidth`` of all multiprocessors
    together). The last wave takes as long as a full one. Products with few tiles are cut along k, which writes C once more
    for each part. The library is taken to choose the fastest. A whole product also takes no less than its operands and C
    need to and from memory.

    With ``fused_sums`` products add gradients to those of earlier micro-batches by themselves; else a sweep does.

    ``precisions`` is the share of the general GEMM efficiency that kernels of a precision reach, where it is another than
    one. ``attention`` is that of the peak that a fused kernel of attention reaches on the FLOPs of full scores, where the machine
    names none (:attr:`CoreGroup.attention`); kernels that skip what a causal mask hides do half of these.

    Source of tiles and waves: NVIDIA, "Matrix Multiplication Background User's Guide" (tile and wave quantisation).
    """

    shapes: tuple[tuple[Side, Side], ...] = Field(min_length=1)
    fill: float = Field(ge=0)
    cache_bandwidth: BytesPerSecond
    fused_sums: bool = False
    precisions: dict[Precision, Ratio] = {}
    attention: Ratio | None = None

    def seconds(
        self,
        m: Array,
        n: Array,
        k: Array,
        count: float,
        precision: Precision,
        rate: float,
        processors: int,
        write: float,
        launches: float = 1.0,
    ) -> Array:
        """Seconds of ``count`` products in so many launches, memory apart.

        Products of one launch share its waves, and so do those of :data:`STREAMS` launches that run at once.

        ``rate`` is the FLOP/s of all ``processors`` at full tiles, ``write`` the bytes per second at which parts of a cut product
        are written and read again.
        """
        together = min(count, STREAMS * count / launches) if launches > 1 else count
        fastest = np.full(np.broadcast_shapes(m.shape, n.shape, k.shape, np.shape(count), np.shape(launches)), np.inf)
        for rows, columns in self.shapes:
            step = self._step(rows, columns, precision, rate, processors)
            tiles = together * np.ceil(m / rows - 1e-9) * np.ceil(n / columns - 1e-9)
            waves = count / together * np.ceil(tiles / processors - 1e-9)
            np.minimum(fastest, waves * (k + self.fill) * step, out=fastest)
            few = tiles < processors
            if not few.any():
                continue
            cut = np.broadcast_to(few, fastest.shape)
            some, deep, elements, rounds = (
                np.broadcast_to(each, fastest.shape)[cut] for each in (tiles, k, count * m * n, count / together)
            )
            for parts in SPLITS:
                waves = rounds * np.ceil(some * parts / processors - 1e-9)
                again = 2 * parts * BYTES["fp32"] * elements / write
                fastest[cut] = np.minimum(fastest[cut], waves * (deep / parts + self.fill) * step + again)
        return fastest

    def _step(self, rows: int, columns: int, precision: Precision, rate: float, processors: int) -> float:
        """Seconds of a tile for one element of depth."""
        computing = 2.0 * rows * columns * processors / (rate * self.precisions.get(precision, 1.0))
        fetching = (rows + columns) * BYTES[precision] * processors / self.cache_bandwidth
        return max(computing, fetching)
