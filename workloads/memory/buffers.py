"""What is there only for a while, or always: logits, buffers of exchanges, and what the accelerator keeps for itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...hardware.precisions import BYTES
from ..mesh.axes import CONTEXT
from ..model.model import Model
from ..plan.setting import Setting
from .activations import Saved
from .need import MemoryLine
from .stages import MemoryStages


def logits(saved: Saved, stages: MemoryStages) -> MemoryLine:
    """4 s·b·v/t bytes (Korthikanti et al. 2022, section 4.3)."""
    local = saved.stacks[False]
    size = max(BYTES["fp32"], saved.size("embedding"))
    count = (1 + local.model.further_tokens) * local.tokens * local.model.vocabulary / local.width
    return MemoryLine("other", "output.loss", "logits in single precision", stages.at_last * count * size)


def libraries(setting: Setting) -> Iterator[MemoryLine]:
    """What the accelerator and its libraries keep: a rank exchanges with a group along each axis of the mesh."""
    processor = setting.processor
    if reserved := processor.reserved_memory:
        yield MemoryLine("other", "reserved", "what driver and libraries keep", np.array([reserved]), keeper="library")
    if processor.framework:
        groups = sum(size > 1 for size in setting.mesh.shape)
        size = np.array([groups * processor.framework.group_memory])
        yield MemoryLine("other", "groups", "buffers of exchanges", size, keeper="library")


def backbone_weights(model: Model, size: int, stages: MemoryStages) -> Iterator[MemoryLine]:
    """Weights of a backbone, which every rank that reads images has whole, in the format in which it computes."""
    if model.convolutions:
        count = sum(each.channels * each.inputs * each.count for each in model.convolutions)
        yield MemoryLine("parameters", "backbone", "weights, not trained", stages.at_first * float(count * size))


def features(saved: Saved, stages: MemoryStages) -> Iterator[MemoryLine]:
    """Input and output of a backbone's largest convolution; nothing else is kept, since it is not trained."""
    local = saved.stacks[True]
    if local.model.convolutions:
        patches = local.tokens * local.model.patches / local.model.seq_len
        largest = 2 * max(each.elements / each.count for each in local.model.convolutions)
        size = stages.at_first * patches * largest * saved.size("embedding")
        yield MemoryLine("other", "backbone", "input and output of its largest layer", size)


def exchanges(saved: Saved, most: float, copies: float = 0.0) -> Iterator[MemoryLine]:
    """Buffers that exchanges fill; ``most`` are the tokens that the fullest rank's experts carry in one layer.

    ``copies`` are those of other ranks' experts in a layer at most; each is kept from the layer's forward to its backward pass.
    """
    for name, what, size in _exchanges(saved, most):
        yield MemoryLine("other", name, what, np.array([size]))
    if copies and saved.loads is not None:
        setting = saved.setting
        model, formats = setting.model, setting.plan.precisions.at(0)["expert"]
        cut = setting.mesh.size(*setting.expert_cut)
        numbers = model.matrices * model.hidden * model.expert_width / cut
        layers = np.ceil(model.moe_layers / setting.mesh.size("pp"))
        size = copies * layers * numbers * (BYTES[formats.compute] + BYTES[formats.gradient])
        yield MemoryLine("other", "copies", "copies of other ranks' experts, and their gradients", np.array([size]))


def _exchanges(saved: Saved, most: float) -> Iterator[tuple[str, str, float]]:
    """(name, what, bytes) of buffers that an exchange fills."""
    local, setting, model = saved.stacks[True], saved.setting, saved.setting.model
    if saved.loads is not None:
        size = (saved.loads.tokens * setting.top_k + most) * model.hidden * saved.size("expert")
        yield "all-to-all", "tokens sent and received", size
    if setting.plan.sequence_parallel:
        yield "gather", "all tokens of a layer's input", local.whole * saved.size("norm")
    if (parts := setting.mesh.size(*CONTEXT)) > 1:
        heads = max(1.0, model.key_value_heads / local.width)
        keys = local.tokens * heads * model.query_size * saved.size("attention")
        values = local.tokens * heads * model.value_size * saved.size("attention")
        yield "ring", *setting.plan.kernel.ring_buffer(keys, values, parts)
    if (side := setting.mesh.size("row")) > 1:
        wide = model.ffn_hidden * (model.matrices - 1)
        size = (local.tokens * wide / side + model.hidden * wide / side**2) * saved.size("ffn")
        yield "summa", "blocks of a product that are sent around", size
