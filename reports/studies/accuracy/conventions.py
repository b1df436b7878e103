"""How sources count FLOPs, by which throughput and time become one another.

*Hardware* FLOPs count what full recomputation does again: 96·B·s·l·h²·(1 + s/(6h) + V/(16·l·h)) for a GPT (Narayanan et
al. 2021, section 5.1). *Model* FLOPs do not: 72·B·s·l·h²·(1 + s/(6h) + V/(12·l·h)) (Korthikanti et al. 2022, section 4).
Attention counts in full, masked or not. Both follow from the same products, layer by layer, so that gated, grouped and mixed
models count alike.
"""

from __future__ import annotations

import re
from collections import Counter

from ....workloads.model.model import Layer, Model
from .rows import PublishedRow

SOURCES = re.compile(r"SC21|README 2020|bigscience|DeepSpeed|ZeRO|vTrain|alpa", re.IGNORECASE)
"""Sources that count recomputation."""

WORDS = re.compile(r"hw FLOPs|incl\.? recompute", re.IGNORECASE)
"""Words in a note that say so."""

BACKWARD = 2
"""Backward passes cost two products for each of the forward pass."""


def counts_recomputation(row: PublishedRow) -> bool:
    """Whether the source of a row counts hardware FLOPs."""
    if row.text("measured_metric") == "MFU":
        return False
    return bool(SOURCES.search(row.source) or WORDS.search(row.text("note")))


def step_flops(model: Model, sequences: float, seq_len: int, recomputed: bool) -> float:
    """FLOPs of a training step; ``recomputed`` counts the second forward pass through the layers."""
    tokens = sequences * seq_len
    passes = 1 + BACKWARD
    layers = sum(count * _layer(model, layer, seq_len) for layer, count in Counter(model.stack).items())
    output = 2.0 * model.hidden * model.vocabulary
    return tokens * ((passes + recomputed) * layers + passes * output)


def _layer(model: Model, layer: Layer, seq_len: int) -> float:
    """FLOPs of a forward pass through a layer, for one token."""
    wide = (model.heads + 2 * model.key_value_heads) * model.query_size
    matrices = model.of_layer(layer).attention - (model.biases and not model.latent) * (wide + model.hidden)
    attention = 2.0 * matrices + 2.0 * seq_len * model.heads * (model.query_size + model.value_size)
    width = 2.0 * model.matrices * model.hidden
    if not layer.moe:
        return attention + width * model.ffn_hidden
    experts = model.top_k + model.shared_experts
    return attention + width * model.expert_width * experts + 2.0 * model.hidden * model.experts
