"""What a rank saw of its tokens in a layer: the record that training makes and observation adds up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """What a rank saw of one layer and micro-batch: tokens of its own by rank wanted, and what became of them."""

    wanted: NDArray[np.int64]  # [top_k, ranks]
    carried: int
    moved: int
    dropped: int
