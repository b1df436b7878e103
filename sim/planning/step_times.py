"""Seconds of a step's parts: what the lowering puts around the passes of each part of a model, and around all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Literal

from ...workloads.lowering import finish
from ...workloads.lowering.builder import Program
from ...workloads.lowering.data_parallel.sharding import last_of, parts_of
from ...workloads.lowering.data_parallel.weight_gathering import Gathered
from ...workloads.lowering.pipeline_blocks import PipelineBlocks, last_differs
from ...workloads.lowering.step import TrainingStep
from ...workloads.model.layers import Layer
from ...workloads.pipelines import PartSeconds, Pipeline, StageSeconds, find_pipeline
from ...workloads.plan.setting import Setting
from ...workloads.schedule.costs import Costs
from .collective_times import Wires
from .latest import Latest
from .pass_times import Key, PassTimes, SpanSeconds, seconds_of
from .pipeline_times import one_after_another
from .spans import MICRO_BATCHES, SpanStep, add
from .timeline import REPEATED, SpanTimeline

MicroBatch = Literal["first", "another", "last"]
"""Which micro-batch a block is of."""


@dataclass(frozen=True)
class Around:
    """What a setting shares with others that hold and exchange their parameters in the same way; ``number`` stands for it.

    ``made`` lowers blocks of all of them. Timelines are made on demand: of blocks by what they hold, and of the whole step
    around its micro-batches. ``bare`` says of which blocks there is nothing around their passes.
    """

    number: int
    made: PipelineBlocks
    blocks: dict[Key, SpanTimeline] = field(default_factory=dict)
    whole: dict[bool, SpanTimeline] = field(default_factory=dict)
    bare: dict[Key, bool] = field(default_factory=dict)

    def is_bare(self, which: str, split: bool, ends: tuple[bool, bool], micro_batch: MicroBatch) -> bool:
        """Whether a block is nothing but passes through layers, which are the same on every mesh."""
        key = (which, split, ends, micro_batch)
        if key not in self.bare:
            self.bare[key] = self.made.bare(which, split, ends, micro_batch == "last", micro_batch == "first")
        return self.bare[key]


@dataclass(frozen=True)
class HeldLayers:
    """What a part of a model holds: layers, and whether embedding and output are with them."""

    layers: range
    kinds: tuple[Layer, ...]
    ends: tuple[bool, bool]

    @cached_property
    def even(self) -> bool:
        """Whether all its layers are of one kind."""
        return len(set(self.kinds)) == 1

    @cached_property
    def key(self) -> Key:
        """What decides how long it takes."""
        return (self.kinds[0], len(self.kinds), self.ends) if self.even else (self.kinds, self.ends, self.layers.start)


@dataclass
class StepTimes:
    """Steps of settings. The lowering is asked once for what settings share."""

    costs: Costs
    passes: PassTimes
    _around: dict[Key, Around] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    _latest: Latest[Around] = field(default_factory=Latest)
    _bare: dict[Key, SpanTimeline] = field(default_factory=dict)
    _parts: dict[Key, list[PartSeconds]] = field(default_factory=dict)
    _held: dict[Key, list[HeldLayers]] = field(default_factory=dict)
    _pipelines: dict[str, Pipeline] = field(default_factory=dict)

    def pipeline(self, setting: Setting) -> Pipeline:
        """The pipeline of a setting with stages."""
        name = setting.plan.pipeline
        if name not in self._pipelines:
            self._pipelines[name] = find_pipeline(name)
        return self._pipelines[name]

    def parts(self, setting: Setting, wires: Wires) -> list[PartSeconds]:
        """Seconds of every part of the model, chunk · stages + stage, for one micro-batch; with one stage, of all of it."""
        stages = setting.mesh.size("pp")
        split = stages > 1 and self.pipeline(setting).splits_backward
        around, timed = self.around(setting, wires), self.passes.of(setting, wires)
        key = (around.number, timed.number, stages, *self._divided(setting), split)
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) > KEPT:
                self._parts.clear()
            known, every = dict[Key, PartSeconds](), self._every(setting)
            differs = last_differs(setting)
            for held in every:
                if held.key not in known:
                    known[held.key] = self._part(around, wires, held, split, differs, timed)
            found = self._parts[key] = [known[held.key] for held in every]
        return found

    def least(self, setting: Setting, wires: Wires) -> float:
        """Seconds that all micro-batches of a step take at least: of their passes alone, without messages.

        A little less (:data:`BELOW`) where there are stages, since a pipeline's closed form may be below what its order takes.
        """
        stages, count = setting.mesh.size("pp"), setting.batch.micro_batches
        timed, pipeline = self.passes.of(setting, wires), self.pipeline(setting) if stages > 1 else None
        key = (
            stages,
            *self._divided(setting),
            pipeline and pipeline.splits_backward,
            pipeline and pipeline.asynchronous,
            count,
        )
        found = timed.bounds.get(key)
        if found is None:
            split = bool(pipeline and pipeline.splits_backward)
            every = self._every(setting)
            known = {
                held.key: timed.passes(held.kinds, held.ends, split)
                for held in {each.key: each for each in every}.values()
            }
            parts = [known[held.key] for held in every]
            if pipeline is None:
                found = ROUNDED * one_after_another(parts, count)
            else:
                found = BELOW * pipeline.least_seconds(StageSeconds(parts, stages, 0.0), count)
            timed.bounds[key] = found
        return found

    def first_forward(self, setting: Setting, wires: Wires) -> float:
        """Seconds by which the first forward pass takes longer where it waits for weights that are gathered beside it."""
        if not setting.plan.weights_overlap or setting.composed:
            return 0.0
        (held,) = self._every(setting)
        around, timed = self.around(setting, wires), self.passes.of(setting, wires)
        first, usual = (self._seconds(around, wires, held, "F", False, each, timed) for each in ("first", "another"))
        return first[0] - usual[0]

    def whole(self, setting: Setting, wires: Wires, micro_batches: float) -> float:
        """Seconds of a step whose micro-batches take so many: with what comes before, beside and after them."""
        around = self.around(setting, wires)
        timeline = around.whole.get(setting.composed)
        if timeline is None:
            timeline = around.whole[setting.composed] = self._whole(around.made.this, wires, setting.composed)
        return timeline.run({MICRO_BATCHES: micro_batches})[0]

    def around(self, setting: Setting, wires: Wires) -> Around:
        """What is known of settings that hold and exchange their parameters as this one does."""
        return self._latest.of(setting, lambda: self._around_of(setting, wires))

    def _around_of(self, setting: Setting, wires: Wires) -> Around:
        plan, stages = setting.plan, setting.mesh.size("pp")
        local = setting.batch.micro_tokens if "activations" in plan.offloads or plan.scatter_gather else 0
        key: Key = (
            setting.mesh,
            wires.placement,
            plan.zero,
            plan.overlap,
            plan.offload,
            plan.offload_delay,
            plan.optimizer,
            *setting.dealt,
            plan.sequence_parallel,
            plan.scatter_gather,
            setting.expert_axes,
            setting.expert_cut,
            plan.precision,
            plan.framework,
            plan.pipeline if stages > 1 and self.pipeline(setting).asynchronous else "",
            local,
        )
        if key not in self._around:
            if len(self._around) > KEPT_AROUND:
                self._around.clear()
            self._around[key] = Around(next(self._numbers), PipelineBlocks(SpanStep(setting, wires.layout)))
        return self._around[key]

    def _divided(self, setting: Setting) -> Key:
        """What decides which layers a part has, beside the stages, and of which of them something is worked out again."""
        plan = setting.plan
        chunks = plan.chunks if setting.mesh.size("pp") > 1 else 1
        return chunks, setting.folded, plan.stage_layers, plan.recompute_layers

    def _every(self, setting: Setting) -> list[HeldLayers]:
        stages, stack = setting.mesh.size("pp"), setting.stack
        key = (stages, *self._divided(setting))
        if key not in self._held:
            parts = parts_of(setting)
            self._held[key] = [
                HeldLayers(layers, tuple(stack[layer] for layer in layers), (at == 0, at == last_of(setting)))
                for at, layers in enumerate(parts)
            ]
        return self._held[key]

    def _part(
        self, around: Around, wires: Wires, held: HeldLayers, split: bool, differs: bool, timed: SpanSeconds
    ) -> PartSeconds:
        def seconds(which: str, micro_batch: MicroBatch = "another") -> tuple[float, float]:
            return self._seconds(around, wires, held, which, split, micro_batch, timed)

        (ahead, passed), (back, made) = seconds("F"), seconds("B")
        weights = seconds("W")[0] if split else 0.0
        tail = seconds("W" if split else "B", "last")[0] - (weights if split else back) if differs else 0.0
        return PartSeconds(ahead, back, weights, ahead - passed, back - made, tail)

    def _seconds(
        self,
        around: Around,
        wires: Wires,
        held: HeldLayers,
        which: str,
        split: bool,
        micro_batch: MicroBatch,
        timed: SpanSeconds,
    ) -> tuple[float, float]:
        """Seconds of a block, and until what it passes on is there; of one that is bare, known for every mesh."""
        if not around.is_bare(which, split, held.ends, micro_batch):
            return self._block(around, wires, held, which, split, micro_batch).run(timed.seconds)
        key = (held.key, which, split)
        found = timed.blocks.get(key)
        if found is None:
            if key not in self._bare:
                self._bare[key] = self._lowered(around, wires, held.ends, held.layers, which, split, micro_batch)
            found = timed.blocks[key] = self._bare[key].run(timed.seconds)
        return found

    def _block(
        self, around: Around, wires: Wires, held: HeldLayers, which: str, split: bool, micro_batch: MicroBatch
    ) -> SpanTimeline:
        """The timeline of a block; of many layers that are alike only some are lowered."""
        key = (held.key, which, split, micro_batch)
        found = around.blocks.get(key)
        if found is not None:
            return found
        if held.even and len(held.layers) > REPEATED:
            few = replace(held, layers=held.layers[:REPEATED], kinds=held.kinds[:REPEATED])
            found = self._block(around, wires, few, which, split, micro_batch).repeated(len(held.layers) - REPEATED)
        if found is None:
            found = self._lowered(around, wires, held.ends, held.layers, which, split, micro_batch)
        around.blocks[key] = found
        return found

    def _lowered(
        self,
        around: Around,
        wires: Wires,
        ends: tuple[bool, bool],
        layers: range,
        which: str,
        split: bool,
        micro_batch: MicroBatch,
    ) -> SpanTimeline:
        operations = around.made.make(layers, which, split, ends, {}, micro_batch == "last", micro_batch == "first")
        return SpanTimeline.of(operations, lambda each: seconds_of(each, wires, self.costs))

    def _whole(self, step: TrainingStep, wires: Wires, composed: bool) -> SpanTimeline:
        """As :func:`~athanor.workloads.lowering.lower_step` has it."""
        program = Program(wires.layout)
        if composed and step.setting.plan.weights_overlap:
            Gathered.ahead(program, step.update)
        add(program, MICRO_BATCHES)
        program.phase = "update"
        if not step.asynchronous:
            finish(program, step)
        return SpanTimeline.of(program.schedule().operations, lambda each: seconds_of(each, wires, self.costs))


ROUNDED = 1 - 1e-9
"""By how much less a bound is, so that no rounding takes it above what it bounds."""

BELOW = 0.97
"""By how much less a bound of a pipeline is than what no order takes less than."""

KEPT_AROUND = 100
"""Ways to hold and exchange parameters of which is known what is around passes: those of a mesh come again."""

KEPT = 5_000
"""Lists of parts that are kept at once."""
