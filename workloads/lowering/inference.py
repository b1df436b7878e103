"""Inference: a forward pass of some tokens of each sequence, whose keys and values may be at hand from passes before.

Incremental inference keeps keys and values of all tokens before and computes the new token alone; without it every token computes
all over again, padded to a fixed length (PanGu-alpha's online service). Experts in host memory stream in while others compute
(InfMoE of CPM-2): with prefetch the next layer's come beside this one, all of them, since nobody knows yet which will be chosen;
without it only those that were chosen come, and are waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...hardware.precisions import BYTES
from ..model.precision import Formats, Part
from ..plan.batch import Batch
from ..plan.setting import Setting
from ..schedule.operation import Role, Task
from ..schedule.schedule import Schedule
from ..schedule.work import HostCopy
from .builder import Program
from .data_parallel.gradient_sync import Update
from .data_parallel.sharding import held, held_of_layer
from .data_parallel.weight_gathering import Fetched, offloaded
from .layer.layer_hooks import LayerHook
from .layer.passes import Passes
from .step import TrainingStep


@dataclass(frozen=True)
class Pass:
    """A forward pass: so many sequences, new tokens of each, and tokens that each of them attends to, itself included."""

    sequences: int
    queries: int
    keys: int


def lower_pass(setting: Setting, each: Pass, prefetch: bool) -> Schedule:
    """The schedule of a forward pass; of each sequence only the last token gets scores over the vocabulary."""
    batch = Batch(each.sequences * each.queries, 1, each.queries)
    first = 0 if each.queries == each.keys else setting.model.encoder_layers  # the encoder has run once
    layers = tuple(range(first, setting.model.depth))
    model = setting.model.model_copy(update={"decoder_seq_len": None})  # a decoder's tokens come one by one as well
    here = replace(setting, batch=batch, model=model)
    step = TrainingStep(here, 0)
    flows = step.flows(0)
    around = tuple(_around(here, step.update, layers, prefetch))
    passes = replace(_looking_back(step.bare, each), around=around)
    program = Program(setting.layout)
    passes.forward(program, layers, flows)
    return program.schedule()


def cache_bytes(setting: Setting, formats: Mapping[Part, Formats], sequences: int, tokens: int) -> float:
    """Bytes of a rank's kept keys and values, as far as later tokens see them.

    Of latent attention only what they are made from, and of a recurrent layer its state.
    """
    model, width = setting.model, setting.mesh.size("tp", "col")
    each: float = 2 * max(1.0, model.key_value_heads / width) * model.query_size
    if model.latent:
        each = model.latent.key_value_rank + model.latent.rotary
    total = 0.0
    for layer in model.stack[model.encoder_layers : model.depth]:
        if recurrent := model.recurrent_of(layer):
            total += recurrent.state(model.hidden) / width
        else:
            total += each * model.sight(layer).reach(tokens)
        total += each * tokens * layer.cross  # a decoder keeps those of the encoder's answer as well
    return total * sequences * BYTES[formats["attention"].compute]


def weight_bytes(setting: Setting, formats: Mapping[Part, Formats]) -> tuple[float, float]:
    """Bytes of a rank's weights: on the accelerator (with room for two layers of what streams in), and in host memory."""
    away = setting.plan.offload_shares
    device = host = 0.0
    for each in held(setting):
        size = float(np.max(each.parameters)) * BYTES[formats[each.part].weight]
        share = 0.0 if each.part == "embedding" else offloaded(each.part, away)
        host += share * size
        device += (1 - share) * size
    layers = [
        sum(
            float(np.max(each.parameters)) * BYTES[formats[each.part].weight] * offloaded(each.part, away)
            for each in held_of_layer(setting, layer)
        )
        for layer in range(setting.model.depth)
    ]
    return device + 2 * max(layers), host


def _looking_back(passes: Passes, each: Pass) -> Passes:
    """The passes with the keys of earlier tokens; an encoder's answer is at hand once its tokens are no longer new."""
    stacks = {encoder: replace(local, keys=float(each.keys)) for encoder, local in passes.stacks.items()}
    if each.queries < each.keys and passes.setting.model.encoder_layers:
        stacks[True] = replace(stacks[True], tokens=0.0)
    last = replace(passes.ends.last, tokens=float(each.sequences))
    return replace(passes, stacks=stacks, ends=replace(passes.ends, last=last), paced=False)  # engines replay graphs


def _around(setting: Setting, update: Update, layers: tuple[int, ...], prefetch: bool) -> list[LayerHook]:
    """How weights come that are not at hand."""
    if not setting.plan.offloads:
        return []
    if prefetch or "parameters" in setting.plan.offloads:
        ahead = replace(setting, plan=setting.plan.changed(overlap="gradients" if prefetch else "none"))
        return [Fetched(replace(update, setting=ahead), layers)]
    return [Chosen(setting, update.formats)]


@dataclass(frozen=True)
class Chosen(LayerHook):
    """Fetches the experts that a layer's tokens chose, as many as differ in the mean of uniform choices."""

    setting: Setting
    formats: Mapping[Part, Formats]

    def before(self, program: Program, layer: int, again: bool) -> None:
        """They come before the layer; the gate before them takes next to no time."""
        if not self.setting.model.stack[layer].moe:
            return
        experts = self.setting.model.experts
        tokens = self.setting.batch.micro_tokens * self.setting.top_k * self.setting.mesh.size("ep")
        differ = experts * (1.0 - (1.0 - 1.0 / experts) ** tokens)
        held = next(each for each in held_of_layer(self.setting, layer) if each.part == "expert")
        share = self.setting.plan.offload_shares["experts"]
        nbytes = share * held.parameters * BYTES[self.formats["expert"].weight] * differ / experts
        program.add(Task(Role.WEIGHT_FETCH, layer=layer), HostCopy(nbytes, "in"), "offload", "weights.in")
