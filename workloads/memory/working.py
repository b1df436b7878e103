"""What a framework has for a while beside what formulas count: gradients on their way, copies, buckets, idle blocks.

Counted where the machine names a framework (``core_group.framework``). Three moments of a micro-batch have the most in work, of
which a stage has room for the largest:

- the way back through a layer: what is worked out again of it, and gradients of its activations;
- the loss, on the last stage: logits in their own format and in single precision, and the gradient of the output's weights;
- the embedding's gradient, on the first stage: a table as large as that of its weights, before it is added to the one there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ...hardware.framework import Framework
from ...hardware.precisions import BYTES
from ..lowering.data_parallel.sharding import held, shards
from ..model.precision import Formats, Part
from ..plan.setting import Setting
from .activations import Saved
from .need import Array, MemoryLine
from .stages import MemoryStages

BUCKET = 5e8
"""Gradients that ZeRO 1 and 2 gather up before they are reduced (DeepSpeed's configuration, ``reduce_bucket_size``)."""

STREAMS = 2
"""Gradients of the residual stream in work, of all tokens as products need them: of a half's output and of its input."""

SIDES = 2
"""Gradients of an operator in work: of its output and of its input."""


class Working:
    """Lines of what is in work on each stage, in the formats of one policy."""

    def __init__(self, setting: Setting, formats: Mapping[Part, Formats], stages: MemoryStages) -> None:
        self.setting, self.formats, self.stages = setting, formats, stages

    def resident(self) -> Iterator[MemoryLine]:
        """What does not depend on micro-batches: gradients for the update, and in buckets.

        With gradients in half precision and weights that are updated in single, the update has a copy of the gradients in single:
        4 + 16/n bytes a parameter with an optimizer over n ranks, 20 without (Megatron-LM, distributed optimizer).
        """
        setting, framework = self.setting, self.setting.processor.framework
        copies, bucket, halves = (np.zeros(self.stages.count) for _ in range(3))
        stays = 1.0 - setting.plan.offload_shares.get("optimizer", 0.0)
        for each in held(setting):
            count, formats = self.stages.by_stage(each.parameters), self.formats[each.part]
            if formats.master and BYTES[formats.gradient] < BYTES[formats.master]:
                copies = copies + stays * count / shards(setting, each) * BYTES[formats.master]
            if framework and framework.half_gradients and BYTES[formats.compute] < BYTES[formats.gradient]:
                halves = halves + count * BYTES[formats.compute]
            if setting.plan.sharding.gathers_updates and shards(setting, each) > 1:
                bucket = bucket + count * BYTES[formats.gradient]
        most = BUCKET * max(BYTES[each.gradient] for each in self.formats.values())
        yield MemoryLine("other", "gradients", "copy in the format of the update", copies, keeper="update")
        yield MemoryLine("other", "gradients", "in half precision, until they are added", halves)
        yield MemoryLine("other", "gradients", "bucket to be reduced", np.minimum(bucket, most))

    def sent_on(self, saved: Saved) -> Iterator[MemoryLine]:
        """Outputs of stages, which stay until their gradients come; ranks of tp share them (DeepSpeed's pipelines)."""
        if self.stages.count == 1:
            return
        local, flight = saved.stacks[False], self.stages.flight.copy()
        flight[-1, -1] = 0  # the model's own output is no stage's input
        parts = 1 if local.stream < local.whole else local.width
        size = local.stream / parts * saved.size("norm")
        yield MemoryLine("activations", "stage", "outputs, until their gradients come", flight.sum(axis=1) * size)

    def moment(self, saved: Saved, most: float) -> Iterator[MemoryLine]:
        """The lines of the moment that has the most in work, on each stage; ``most`` are tokens that experts carry."""
        moments = [self._layer(saved, most), self._loss(saved), self._embedding(saved)]
        sums = np.array([sum(np.broadcast_to(line.nbytes, self.stages.count) for line in lines) for lines in moments])
        fullest = sums.argmax(axis=0)
        for number, lines in enumerate(moments):
            for line in lines:
                yield MemoryLine(line.part, line.name, line.what, np.where(fullest == number, line.nbytes, 0.0))

    def _layer(self, saved: Saved, most: float) -> list[MemoryLine]:
        """Of a layer: what is not kept of it, and gradients of the stream and of its widest operator."""
        kept = self.setting.plan.recomputation.kept
        again, back = np.zeros(self.stages.count), np.zeros(self.stages.count)
        for kind in self.stages.kinds:
            rows, there = saved.layer(kind), self.stages.has(kind)
            again = np.maximum(again, there * sum((1 - kept(row)) * row.size(most) for row in rows))
            stream = saved.stacks[kind.encoder].whole * saved.size("norm")
            widest = max(row.size(most) for row in rows)
            back = np.maximum(back, there * (STREAMS * stream + SIDES * widest))
        return [
            MemoryLine("activations", "again", "one layer, worked out again", again),
            MemoryLine("activations", "back", "gradients of a layer's activations", back),
        ]

    def _loss(self, saved: Saved) -> list[MemoryLine]:
        """Logits, 4 s·b·v/t bytes in single precision (Korthikanti et al. 2022), and in the format that they come in.

        Megatron's loss works in place. The framework's own, which plans of ZeRO 3 have, makes logarithms beside; cut over tp, it
        also has the logits without their maximum (PyTorch's ``loss_parallel``).
        """
        local, last = saved.stacks[False], np.minimum(1.0, self.stages.at_last)
        logits = (1 + local.model.further_tokens) * local.tokens * local.model.vocabulary / local.width
        single, own = max(BYTES["fp32"], saved.size("embedding")), saved.size("embedding")
        beside = own if own < single else 0
        copies = single * (1 + (local.width > 1)) if self.setting.plan.sharding.shards_weights else 0
        weights = local.model.vocabulary * local.model.hidden / local.width * BYTES[self.formats["embedding"].gradient]
        return [
            MemoryLine("other", "output.loss", "logits in single precision", last * logits * single),
            MemoryLine("other", "output.loss", "logits as they come, and copies", last * logits * (beside + copies)),
            MemoryLine("other", "output.logits", "gradient of its weights", last * weights),
        ]

    def _embedding(self, saved: Saved) -> list[MemoryLine]:
        """The whole table's gradient, though few of its rows are not zero."""
        local = saved.stacks[True]
        first = np.minimum(1.0, self.stages.at_first)
        size = local.model.vocabulary * local.model.hidden / local.width * BYTES[self.formats["embedding"].gradient]
        return [MemoryLine("other", "embedding", "its gradient, before it is added", first * size)]


class Pool(NamedTuple):
    """Bytes on each stage: of copies for the update that have blocks of their own, and of idle blocks."""

    copies: Array
    idle: Array


def settled(framework: Framework, capacity: float, stays: Array, passes: Array, copies: Array, kept: Array) -> Pool:
    """What the pool has beside what is in use; bytes on each stage.

    Copies for the update come when activations have gone, yet get blocks of their own: those that are free are too small. Only
    where memory runs out does the pool give idle blocks back, and copies take the place of what passes.
    """
    apart = np.minimum(copies, passes)
    room = np.maximum(0.0, capacity - stays - passes - kept - (copies - apart))
    fresh = np.minimum(apart, room)
    idle = np.minimum(framework.fragments * (stays + passes + copies), room - fresh)
    return Pool(copies - apart + fresh, idle)
