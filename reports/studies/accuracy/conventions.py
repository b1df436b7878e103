"""How sources count FLOPs, by which throughput and time become one another.

*Hardware* FLOPs count what full recomputation does again: 96·B·s·l·h²·(1 + s/(6h) + V/(16·l·h)) for a GPT (Narayanan et
al. 2021, section 5.1). *Model* FLOPs do not: 72·B·s·l·h²·(1 + s/(6h) + V/(12·l·h)) (Korthikanti et al. 2022, section 4).
Attention counts in full unless a source says that it counts what the mask leaves. Both follow from the same products, layer by
layer, so that gated, grouped and mixed models count alike. A run's :class:`Convention` says which of these its source counts.
"""

from __future__ import annotations

from ....workloads.model.flops import forward_flops
from ....workloads.model.model import Model
from ...published.run import Convention


def step_flops(model: Model, sequences: float, seq_len: int, counts: Convention) -> float:
    """FLOPs of a training step, as a source counts them."""
    forward = forward_flops(model, sequences * seq_len, seq_len, masked=counts.causal)
    output = forward.output
    if counts.vocabulary is not None:
        output *= counts.vocabulary / model.vocabulary
    return forward.trained + 3 * (output - forward.output) + counts.recomputation * forward.layers
