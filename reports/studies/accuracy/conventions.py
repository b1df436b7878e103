"""How sources count FLOPs, by which throughput and time become one another.

*Hardware* FLOPs count what full recomputation does again: 96·B·s·l·h²·(1 + s/(6h) + V/(16·l·h)) for a GPT (Narayanan et
al. 2021, section 5.1). *Model* FLOPs do not: 72·B·s·l·h²·(1 + s/(6h) + V/(12·l·h)) (Korthikanti et al. 2022, section 4).
Attention counts in full, masked or not. Both follow from the same products, layer by layer, so that gated, grouped and mixed
models count alike.
"""

from __future__ import annotations

import re

from ....workloads.model.flops import forward_flops
from ....workloads.model.model import Model
from .rows import PublishedRow

SOURCES = re.compile(r"SC21|README 2020|bigscience|DeepSpeed|ZeRO|vTrain|alpa", re.IGNORECASE)
"""Sources that count recomputation."""

WORDS = re.compile(r"hw FLOPs|incl\.? recompute", re.IGNORECASE)
"""Words in a note that say so."""


def counts_recomputation(row: PublishedRow) -> bool:
    """Whether the source of a row counts hardware FLOPs."""
    if row.text("measured_metric") == "MFU":
        return False
    return bool(SOURCES.search(row.source) or WORDS.search(row.text("note")))


def step_flops(model: Model, sequences: float, seq_len: int, recomputed: bool) -> float:
    """FLOPs of a training step; ``recomputed`` counts the second forward pass through the layers."""
    forward = forward_flops(model, sequences * seq_len, seq_len, masked=False)
    return forward.trained + recomputed * forward.layers
