"""FLOPs of a pipeline's blocks."""

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
    """FLOPs of each block; those that are filled in know theirs."""
    return [block.flops if isinstance(block, FilledBlock) else flops_of(block) for block in blocks]


def flops_of(operations: Iterable[Operation]) -> Flops:
    """FLOPs of some operations."""
    found = defaultdict[Precision | None, float](float)
    for operation in operations:
        work = operation.work
        flops = work.flops
        key = work.precision if isinstance(work, Gemm | FusedAttention) else None
        found[key] += float(flops.mean() if isinstance(flops, np.ndarray) else flops)
    return dict(found)
