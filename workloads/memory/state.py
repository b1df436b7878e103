"""Weights, gradients and optimizer state of a rank: what ZeRO leaves of them, and what lies in host memory.

ZeRO 1 shards the optimizer's state, 2 gradients too, 3 weights too: with N parameters, n replicas and Adam in mixed precision
4 N + 12 N/n, 2 N + 14 N/n and 16 N/n bytes (Rajbhandari et al. 2020, section 5). Where they are sharded, weights and gradients of
single layers are whole for a while (:meth:`State.whole_layers`). ZeRO++ keeps a second shard of the weights, along fsdp (Wang et
al. 2023, section 3.2). PipeDream and 2BW keep several versions of the weights (Narayanan et al. 2019, 2021b). ZeRO-Offload leaves
2 of 16 bytes on the device (Ren et al. 2021, section 4). PyTorch's FSDP keeps shards in single precision alone, 16 N/n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from math import inf

import numpy as np

from ...hardware.precisions import BYTES
from ..lowering.data_parallel.held_tensors import HeldTensors, held_tensors, split_axes
from ..lowering.data_parallel.sharding import Holding, held, held_beside_layers, held_of_layer, shards, trained
from ..lowering.data_parallel.weight_gathering import offloaded
from ..model.precision import Formats, Part
from ..optimizers.optimizer import kept_precision
from ..plan.setting import Setting
from .need import Array, MemoryLine
from .need import Part as MemoryPart
from .stages import MemoryStages

AT_ONCE = 2
"""Layers whose weights are there at once: the one that is passed through, and the next."""


def all_of(part: Part) -> float:
    """The whole of every part."""
    return 1.0


class ModelState:
    """What a rank of each stage holds for the model's parameters, in the formats of one policy."""

    def __init__(self, setting: Setting, formats: Mapping[Part, Formats], stages: MemoryStages) -> None:
        self.setting, self.formats, self.stages = setting, formats, stages
        self.plan = setting.plan

    @cached_property
    def tensors(self) -> HeldTensors:
        """Of which tensors ranks have parts."""
        return held_tensors(self.setting)

    def lines(self) -> Iterator[MemoryLine]:
        """Weights, gradients and optimizer state by part of the model, here and in host memory."""
        ends = {each.part: each for each in held_beside_layers(self.setting)}
        for each in held(self.setting):
            count = self.stages.by_stage(each.parameters)
            beside = self.stages.by_stage(ends[each.part].parameters) if each.part in ends else np.zeros(1)
            yield from self._weights(each, count, beside)
            if self.setting.model.trains(each.part):
                yield from self._gradients(each, count)
                yield from self._optimizer(each, count)
        yield from self._workspace()

    def whole_layers(self) -> Iterator[MemoryLine]:
        """Weights of layers that are fetched, and gradients of layers not reduced yet; no more than a framework allows."""
        if self.plan.sharding.shards_weights or self.plan.offloads & {"parameters", "experts"}:
            size = AT_ONCE * self._largest("weight", self._fetched)
            if self.plan.sharding.shards_weights and not self.plan.sharding.reshards:
                size = self.stages.by_stage(self._bytes(held(self.setting), "weight"))
            elif self.plan.sharding.shards_weights:
                ends = self._bytes(held_beside_layers(self.setting), "weight")
                size = np.maximum(size, self.stages.by_stage(ends))
            most = self.setting.framework.at_once if self.setting.framework else inf
            yield MemoryLine(
                "other", "weights", "layers that are fetched", np.minimum(size, self._at_most(most, "weight"))
            )
        if self.plan.sharding.shards_gradients or self._gradients_leave:
            ends = self._bytes(held_beside_layers(self.setting), "gradient")
            size = np.maximum(self._largest("gradient"), self.stages.by_stage(ends))
            most = (self.setting.framework.bucket if self.setting.framework else 0.0) or inf
            size = np.minimum(size, self._at_most(most, "gradient"))
            yield MemoryLine("other", "gradients", "a layer that is not reduced yet", size)

    def _at_most(self, parameters: float, what: str) -> float:
        """Bytes of so many parameters, or of the largest tensor that a rank of any stage has."""
        found = 0.0
        for each in held(self.setting) if parameters < inf else ():
            cut = self.setting.mesh.size(*split_axes(self.setting, each.part))
            largest = max((tensor.size / cut for tensor in self.tensors.of(each.part)), default=0.0)
            found = max(found, max(parameters, largest) * BYTES[getattr(self.formats[each.part], what)])
        return found or inf

    def _weights(self, each: Holding, count: Array, beside: Array) -> Iterator[MemoryLine]:
        """``beside`` of the count are those of embedding and output, which stay on the device."""
        size, parts = BYTES[self._kept_as(each.part).weight], shards(self.setting, each)
        spread = parts if self.plan.sharding.shards_weights else 1
        away = offloaded(each.part, self.plan.offload_shares) * (count - beside)
        yield MemoryLine("parameters", each.part, "weights", (count - away) / spread * self.stages.versions * size)
        if np.any(away):
            yield MemoryLine("parameters", each.part, "weights", away / spread * size, host=True)
        if self.plan.sharding.keeps_second_shard:
            second = self.setting.mesh.size(*self.plan.sharding.second_shard(each.replicas))
            yield MemoryLine("parameters", each.part, "second shard of the weights", count / second * size)

    def _optimizer(self, each: Holding, count: Array) -> Iterator[MemoryLine]:
        """Master copy and what is kept for every parameter, which is sharded; what is kept for whole tensors, which is not."""
        formats, rules = self._kept_as(each.part), self.tensors.ruled(each)
        counts = [count] if len(rules) == 1 else [self.stages.by_stage(one.parameters) for one in rules]
        state: Array = np.sum(
            [
                some * one.rule.state_bytes(formats) / shards(self.setting, each)
                for some, one in zip(counts, rules, strict=True)
            ],
            axis=0,
        )
        yield from MemoryLine("optimizer", each.part, "state", state).divided(self._away)
        kept = np.zeros(self.stages.count)
        for one in rules:
            for tensor, number in one.tensors.items():
                numbers = sum(one.rule.kept(tensor).values())
                kept = kept + self.stages.by_stage(number) * numbers * BYTES[kept_precision(formats)]
        if np.any(kept):
            yield MemoryLine("optimizer", each.part, "state of whole tensors", kept)

    def _workspace(self) -> Iterator[MemoryLine]:
        """What the update of one tensor needs at a time."""
        most = np.zeros(self.stages.count)
        for each in trained(self.setting):
            for one in self.tensors.ruled(each):
                for tensor, number in one.tensors.items():
                    there = self.stages.by_stage(number) > 0
                    most = np.maximum(most, there * one.rule.workspace(tensor, self.formats[each.part]))
        if np.any(most):
            yield MemoryLine("other", "optimizer", "the update of one tensor", most)

    def _gradients(self, each: Holding, count: Array) -> Iterator[MemoryLine]:
        size = count * BYTES[self._kept_as(each.part).gradient]
        shard = size / shards(self.setting, each)
        stays = 1.0 - self._away if self._gradients_leave else 1.0
        yield MemoryLine(
            "gradients", each.part, "gradients", stays * (shard if self.plan.sharding.shards_gradients else size)
        )
        if self._away:
            yield MemoryLine("gradients", each.part, "gradients", self._away * shard, host=True)
            if self.plan.offload_delay:
                late = self._away * shard
                yield MemoryLine("gradients", each.part, "gradients of the step before", late, host=True)

    def _kept_as(self, part: Part) -> Formats:
        """A part's formats; where shards are in single precision alone, weights and gradients are in that of the update."""
        formats, framework = self.formats[part], self.setting.framework
        if not (framework and framework.single_shards and self.plan.sharding.shards_weights and formats.master):
            return formats
        return replace(formats, weight=formats.master, gradient=formats.master, master=None)

    @property
    def _gradients_leave(self) -> bool:
        """Whether gradients go to the host layer by layer, in every micro-batch, so that the device never has them all."""
        early = self.plan.sharding.shards_gradients or (
            self.plan.gradients_overlap and self.setting.batch.micro_batches == 1
        )
        return self._away > 0 and early

    @property
    def _away(self) -> float:
        """The share of the optimizer's state that lies in host memory."""
        return self.plan.offload_shares.get("optimizer", 0.0)

    def _fetched(self, part: Part) -> float:
        """The share of a layer's part that is not at hand."""
        return 1.0 if self.plan.sharding.shards_weights else offloaded(part, self.plan.offload_shares)

    def _largest(self, what: str, share: Callable[[Part], float] = all_of) -> Array:
        """Bytes of these shares of each stage's largest layer."""
        stack, found = self.setting.stack, np.zeros(self.stages.count)
        for kind in self.stages.kinds:
            size = self._bytes(held_of_layer(self.setting, stack.index(kind)), what, share)
            found = np.maximum(found, self.stages.has(kind) * size)
        return found

    def _bytes(self, holdings: list[Holding], what: str, share: Callable[[Part], float] = all_of) -> float | Array:
        """Bytes of these shares of holdings, in the format of their weights or of the gradients that they have."""
        found: float | Array = 0.0
        for each in holdings if what == "weight" else trained(self.setting, holdings):
            found = found + share(each.part) * each.parameters * BYTES[getattr(self.formats[each.part], what)]
        return found


def all_single(setting: Setting, stages: MemoryStages, bytes_of: dict[str, int]) -> Iterator[MemoryLine]:
    """So many bytes a parameter that the rank holds, whatever the batch; only the optimizer's are sharded."""
    names: dict[MemoryPart, str] = {
        "parameters": "weights",
        "gradients": "gradients",
        "optimizer": "state",
        "activations": "activations",
    }
    for each in held(setting):
        count = stages.by_stage(each.parameters)
        line = MemoryLine("parameters", each.part, "", count)
        for part, what in names.items():
            if part in ("gradients", "optimizer") and not setting.model.trains(each.part):
                continue
            sharded = shards(setting, each) if part == "optimizer" else 1
            yield replace(line, part=part, what=what, nbytes=count * bytes_of[part] / sharded)
