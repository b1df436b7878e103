"""FLOPs of a pipeline's blocks: operations that blocks share are looked at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ...hardware.precisions import Precision
from .operation import Block, FilledBlock, Operation
from .work import FusedAttention, Gemm

Flops = dict[Precision | None, float]
"""In products, by the format in which these run, and in all that is no product (None); in the mean over ranks."""


def flops_of_blocks(blocks: Sequence[Block]) -> list[Flops]:
    """FLOPs of each block."""
    known: dict[tuple[int, frozenset[int]], Flops] = {}

    def of(block: Block) -> Flops:
        if not isinstance(block, FilledBlock):
            return _added({}, block)
        key = id(block.template), block.filled
        if key not in known:
            known[key] = _added({}, (each for number, each in enumerate(block) if number not in block.filled))
        return _added(known[key], (block[number] for number in sorted(block.filled)))

    return [of(block) for block in blocks]


def _added(before: Flops, operations: Iterable[Operation]) -> Flops:
    """With those of more operations."""
    found = defaultdict(float, before)
    for operation in operations:
        work = operation.work
        flops = work.flops
        key = work.precision if isinstance(work, Gemm | FusedAttention) else None
        found[key] += float(flops.mean() if isinstance(flops, np.ndarray) else flops)
    return dict(found)
