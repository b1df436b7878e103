"""The stages of a pipeline as memory sees them: their layers, and how many micro-batches are under way in each."""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np

from ..loads.loads import Load
from ..lowering.data_parallel.sharding import layers_of
from ..model.layers import Layer
from ..pipelines import find_pipeline
from ..pipelines.pipeline import Pipeline
from ..plan.setting import Setting
from .need import Array


@cache
def in_flight(pipeline: Pipeline, stages: int, micro_batches: int, chunks: int) -> Array:
    """Micro-batches under way at the fullest moment of each stage, ``[stages, chunks]``."""
    return np.array(pipeline.in_flight(stages, micro_batches, chunks), dtype=np.float64)


class MemoryStages:
    """The stages of a setting; what differs from stage to stage is an array ``[stages]``, one long without a pipeline."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.count = setting.mesh.size("pp")
        self.chunks = setting.plan.chunks
        self.layers = [
            [layers_of(setting, stage, chunk) for chunk in range(self.chunks)] for stage in range(self.count)
        ]

    @cached_property
    def pipeline(self) -> Pipeline | None:
        """The schedule, where there are several stages."""
        return find_pipeline(self.setting.plan.pipeline) if self.count > 1 else None

    @cached_property
    def flight(self) -> Array:
        """Micro-batches under way in each chunk, ``[stages, chunks]``; without a pipeline one after another."""
        if self.pipeline is None:
            return np.ones((1, 1))
        return in_flight(self.pipeline, self.count, self.setting.batch.micro_batches, self.chunks)

    @cached_property
    def versions(self) -> Array:
        """Versions of its weights that a stage keeps."""
        if self.pipeline is None:
            return np.ones(1)
        return np.array([float(self.pipeline.weight_versions(stage, self.count)) for stage in range(self.count)])

    @cached_property
    def kinds(self) -> dict[Layer, Array]:
        """Layers of each kind in each chunk, ``[stages, chunks]``."""
        stack = self.setting.stack
        found = {kind: np.zeros((self.count, self.chunks)) for kind in dict.fromkeys(stack)}
        for stage, chunks in enumerate(self.layers):
            for chunk, layers in enumerate(chunks):
                for layer in layers:
                    found[stack[layer]][stage, chunk] += 1
        return found

    def copies(self, kind: Layer) -> Array:
        """How often a stage keeps what a layer of that kind keeps of a micro-batch."""
        copies: Array = np.sum(self.kinds[kind] * self.flight, axis=1)
        return copies

    def has(self, kind: Layer) -> Array:
        """1 where a stage has a layer of that kind, else 0."""
        there: Array = np.minimum(1.0, self.kinds[kind].sum(axis=1))
        return there

    @cached_property
    def at_first(self) -> Array:
        """Micro-batches of the embedding that are under way: on the first stage only."""
        return np.where(np.arange(self.count) == 0, self.flight[0, 0], 0.0)

    @cached_property
    def at_last(self) -> Array:
        """Micro-batches of the output layer that are under way: on the stage that has it only."""
        stage, chunk = self.setting.last_part
        return np.where(np.arange(self.count) == stage, self.flight[stage, chunk], 0.0)

    def by_stage(self, amount: float | Array) -> Array:
        """An amount that is a float, or an array over the mesh that differs along pp alone."""
        values = np.asarray(amount, dtype=np.float64).reshape(-1)
        return np.broadcast_to(values, (self.count,))

    def carried(self, loads: list[Load], kind: Layer) -> Array:
        """Tokens that the fullest rank's experts carry, over all layers of a kind on a stage and micro-batches under way.

        Every micro-batch under way counts as the one that brings most.
        """
        place, stack = {layer: at for at, layer in enumerate(self._moe)}, self.setting.stack
        if len(loads) == len(place):
            alike = {id(load): load for layer, load in zip(place, loads, strict=True) if stack[layer] == kind}
            if len(alike) == 1 and np.ndim(load := alike.popitem()[1].received) == 0:
                return float(load) * self.copies(kind)
        found = np.zeros(self.count)
        for stage, chunks in enumerate(self.layers):
            for chunk, layers in enumerate(chunks):
                mine = [place[layer] for layer in layers if layer in place and stack[layer] == kind]
                each = [
                    float(np.max(sum(loads[first + at].received for at in mine)))
                    for first in (range(0, len(loads), len(self._moe)) if mine else ())
                ]
                found[stage] += self.flight[stage, chunk] * max(each, default=0.0)
        return found

    @cached_property
    def _moe(self) -> list[int]:
        return [number for number, layer in enumerate(self.setting.stack) if layer.moe]
