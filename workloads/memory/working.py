"""What a framework has for a while beside what formulas count: gradients on their way, copies, buckets, idle blocks.

Counted where the machine says what frameworks take (``core_group.framework``); which framework it is decides what it keeps
(:mod:`~athanor.workloads.frameworks`). Four moments of a micro-batch have the most in work, of which a stage has room for the
largest:

- the way back through a layer: what is worked out again of it, and gradients of its activations;
- the loss, on the last stage: logits in their own format and, unless a kernel does all, in single precision;
- the way back through the output layer: gradients of its logits, of its weights and of its input;
- the embedding's gradient, on the first stage: a table as large as that of its weights, before it is added to the one there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ...hardware.framework import Framework
from ...hardware.precisions import BYTES
from ..frameworks import TrainingFramework
from ..lowering.data_parallel.held_tensors import held_tensors, split_axes
from ..lowering.data_parallel.sharding import shards, trained
from ..model.layers import Layer
from ..model.precision import Formats, Part
from ..model.tensors import tensors_of_layer
from ..plan.setting import Setting
from .activations import Saved
from .need import Array, MemoryLine
from .stages import MemoryStages
from .way_back import way_back

PRODUCTS: tuple[Part, ...] = ("attention", "ffn", "expert")
"""Parts whose weights stand in products of layers."""


class Working:
    """Lines of what is in work on each stage, in the formats of one policy."""

    def __init__(
        self, setting: Setting, framework: TrainingFramework, formats: Mapping[Part, Formats], stages: MemoryStages
    ) -> None:
        self.setting, self.framework, self.formats, self.stages = setting, framework, formats, stages

    def resident(self) -> Iterator[MemoryLine]:
        """What does not depend on micro-batches: gradients for the update, in buckets, and empty ones; workspaces.

        With gradients in half precision and weights that are updated in single, the update has a copy of the gradients in single:
        4 + 16/n bytes a parameter with an optimizer over n ranks, 20 without (Megatron-LM, distributed optimizer).
        """
        setting, pool = self.setting, self.setting.processor.framework
        copies, bucket, halves = (np.zeros(self.stages.count) for _ in range(3))
        stays = 1.0 - setting.plan.offload_shares.get("optimizer", 0.0)
        single = self.framework.single_shards and setting.plan.sharding.shards_weights
        for each in trained(setting):
            count, formats = self.stages.by_stage(each.parameters), self.formats[each.part]
            if formats.master and BYTES[formats.gradient] < BYTES[formats.master] and not single:
                copies = copies + stays * count / shards(setting, each) * BYTES[formats.master]
            if pool and pool.half_gradients and BYTES[formats.compute] < BYTES[formats.gradient]:
                halves = halves + count * BYTES[formats.compute]
            if setting.plan.sharding.gathers_updates and shards(setting, each) > 1:
                bucket = bucket + count * BYTES[formats.gradient]
        most = self.framework.bucket * max(BYTES[each.gradient] for each in self.formats.values())
        yield MemoryLine("other", "gradients", "copy in the format of the update", copies, keeper="update")
        yield MemoryLine("other", "gradients", "in half precision, until they are added", halves)
        yield MemoryLine("other", "gradients", "bucket to be reduced", np.minimum(bucket, most))
        yield MemoryLine("other", "gradients", "empty, one of each shape", self._empty())
        size = np.full(self.stages.count, self.framework.workspace)
        yield MemoryLine("other", "products", "workspaces of libraries", size)

    def sent_on(self, saved: Saved) -> Iterator[MemoryLine]:
        """Outputs of stages, which stay until their gradients come; ranks of tp share them (DeepSpeed's pipelines)."""
        if self.stages.count == 1 or not self.framework.keeps_outputs:
            return
        local, flight = saved.stacks[False], self.stages.flight.copy()
        flight[self.setting.last_part] = 0  # the model's own output is no stage's input
        parts = 1 if local.stream < local.whole else local.width
        size = local.stream / parts * saved.size("norm")
        yield MemoryLine("activations", "stage", "outputs, until their gradients come", flight.sum(axis=1) * size)

    def moment(self, saved: Saved, most: float) -> Iterator[MemoryLine]:
        """The lines of the moment that has the most in work, on each stage; ``most`` are tokens that experts carry."""
        moments = [self._layer(saved, most), self._loss(saved), self._output(saved), self._embedding(saved, most)]
        sums = np.array([sum(np.broadcast_to(line.nbytes, self.stages.count) for line in lines) for lines in moments])
        fullest = sums.argmax(axis=0)
        for number, lines in enumerate(moments):
            for line in lines:
                yield MemoryLine(line.part, line.name, line.what, np.where(fullest == number, line.nbytes, 0.0))

    @property
    def _fused_sums(self) -> bool:
        """Whether products add gradients of weights to their sums by themselves."""
        tiles = self.setting.processor.core_group.tiles
        return bool(tiles and tiles.fused_sums)

    def _empty(self) -> Array:
        """Empty gradients in the format of activations: of each shape in a layer's products, and of the output layer's."""
        found = np.zeros(self.stages.count)
        if not (self._fused_sums and self.framework.keeps_empty_gradients):
            return found
        setting, shapes = self.setting, dict[tuple[int, int, int], Array]()
        tensors = held_tensors(setting)
        for part in PRODUCTS:
            if not setting.model.trains(part):
                continue
            if part == "expert" and not self.framework.keeps_empty_expert_gradients:
                continue
            cut, size = setting.mesh.size(*split_axes(setting, part)), BYTES[self.formats[part].compute]
            for tensor, count in tensors.of(part).items():
                there = np.minimum(1.0, np.ceil(self.stages.by_stage(count)))
                if tensor.matrix:
                    key = (tensor.rows, tensor.columns, cut)
                    shapes[key] = np.maximum(shapes.get(key, 0.0), there * tensor.size / cut * size)
        return found + sum(shapes.values(), found) + self._output_weights()

    def _output_weights(self) -> Array:
        """The gradient of the output layer's weights as its product makes it, on the last stage."""
        model, width = self.setting.model, self.setting.mesh.size("tp", "col")
        size = model.vocabulary * model.hidden / width * BYTES[self.formats["embedding"].compute]
        size *= model.trains("embedding")
        return np.minimum(1.0, self.stages.at_last) * size

    def _layer(self, saved: Saved, most: float) -> list[MemoryLine]:
        """Of the layer whose way back has the most in work: what is worked out again, and gradients."""
        again, back = np.zeros(self.stages.count), np.zeros(self.stages.count)
        for kind in self.stages.kinds:
            local, there = saved.stacks[kind.encoder], self.stages.has(kind)
            stream, whole = (each * saved.size("norm") for each in (local.stream, local.whole))
            fullest = way_back(saved.layer(kind), saved.kept(kind), most, stream, whole if whole > stream else 0.0)
            fuller = there * sum(fullest) > again + back
            again, back = np.where(fuller, fullest.again, again), np.where(fuller, fullest.back, back)
        size = np.zeros(self.stages.count)
        for kind in self.stages.kinds:
            size = np.maximum(size, self.stages.has(kind) * self._largest_gradient(kind))
        return [
            MemoryLine("activations", "again", "one layer, worked out again", again),
            MemoryLine("activations", "back", "gradients of a layer's activations", back),
            MemoryLine("other", "back", "gradient of one tensor, before it is added", size),
        ]

    def _largest_gradient(self, kind: Layer) -> float:
        """Bytes of the largest gradient of a layer's weights, which is made apart unless one of its shape is kept."""
        reduced_by_layer = self.setting.plan.sharding.shards_gradients  # and counted there
        if reduced_by_layer or (self._fused_sums and self.framework.keeps_empty_gradients):
            return 0.0
        found = 0.0
        for part, tensors in tensors_of_layer(self.setting.model, kind).items():
            if not self.setting.model.trains(part):
                continue
            cut, size = self.setting.mesh.size(*split_axes(self.setting, part)), BYTES[self.formats[part].compute]
            found = max(found, max((tensor.size for tensor in tensors), default=0) / cut * size)
        return found

    def _loss(self, saved: Saved) -> list[MemoryLine]:
        """Logits as they come and, without a fused kernel, 4 s·b·v/t bytes in single precision (Korthikanti et al. 2022).

        Megatron's loss works in place. The framework's own, which PyTorch's FSDP has, makes logarithms beside; cut over tp, it
        also has the logits without their maximum (PyTorch's ``loss_parallel``). A fused kernel puts gradients in their place.
        """
        local, last = saved.stacks[False], np.minimum(1.0, self.stages.at_last)
        logits, own = last * self._scores(saved), saved.size("embedding")
        if self.setting.plan.loss == "fused":
            return [MemoryLine("other", "output.loss", "logits, then their gradients", logits * own)]
        single = max(BYTES["fp32"], own)
        beside = own if own < single else 0
        copies = single * (1 + (local.width > 1)) if self.framework.copies_loss else 0
        return [
            MemoryLine("other", "output.loss", "logits in single precision", logits * single),
            MemoryLine("other", "output.loss", "logits as they come, and copies", logits * (beside + copies)),
        ]

    def _scores(self, saved: Saved) -> float:
        """Scores over the vocabulary on a rank: of the next token, and of each further one."""
        local = saved.stacks[False]
        return (1 + local.model.further_tokens) * local.tokens * local.model.vocabulary / local.width

    def _output(self, saved: Saved) -> list[MemoryLine]:
        """Gradients of logits, of the output layer's input (of all tokens), and of its weights where none is kept for them."""
        local, last = saved.stacks[False], np.minimum(1.0, self.stages.at_last)
        own = saved.size("embedding")
        logits = last * self._scores(saved) * own
        kept = self._fused_sums and self.framework.keeps_empty_gradients
        stream = (local.whole + (local.stream if local.stream < local.whole else 0.0)) * own
        return [
            MemoryLine("other", "output.logits", "gradients of logits", logits),
            MemoryLine("other", "output.logits", "gradient of its input", last * stream),
            MemoryLine(
                "other", "output.logits", "gradient of its weights", 0.0 * last if kept else self._output_weights()
            ),
        ]

    def _embedding(self, saved: Saved, most: float) -> list[MemoryLine]:
        """The whole table's gradient, though few of its rows are not zero; layers have let go their micro-batch by then."""
        local = saved.stacks[True]
        first = np.minimum(1.0, self.stages.at_first)
        size = local.model.vocabulary * local.model.hidden / local.width * BYTES[self.formats["embedding"].compute]
        size *= local.model.trains("embedding")
        gone = sum(
            float(count[0, 0]) * sum(saved.kept(kind)(row) * row.size(most) for row in saved.layer(kind))
            for kind, count in self.stages.kinds.items()
        )
        what = "its gradient, beyond what layers have let go"
        return [MemoryLine("other", "embedding", what, first * max(0.0, size - gone))]


class Pool(NamedTuple):
    """Bytes on each stage: copies for the update that have blocks of their own, idle blocks, and the most in use at once."""

    copies: Array
    idle: Array
    used: Array


def settled(framework: Framework, capacity: float, stays: Array, passes: Array, copies: Array, kept: Array) -> Pool:
    """What the pool has beside what is in use; bytes on each stage.

    Copies for the update come when activations have gone, yet get blocks of their own: those that are free are too small. Only
    where memory runs out does the pool give idle blocks back, and copies take the place of what passes.
    """
    apart = np.minimum(copies, passes)
    room = np.maximum(0.0, capacity - stays - passes - kept - (copies - apart))
    fresh = np.minimum(apart, room)
    idle = np.minimum(framework.fragments * (stays + passes + copies), room - fresh)
    return Pool(copies - apart + fresh, idle, stays + np.maximum(passes, copies))
