"""One training step: what its micro-batches share, and what each of them carries."""

from __future__ import annotations

from dataclasses import replace

from ..loads.loads import Load
from ..loads.token_assignment import between
from ..mesh.placement import Layout
from ..pipelines import PIPELINES
from ..plan.setting import Setting
from .data_parallel.gradient_sync import Update
from .data_parallel.offload import Activations, Early
from .data_parallel.weight_gathering import Fetched, Gathered
from .layer.layer_hooks import LayerHook
from .layer.moe import Flow
from .layer.passes import Passes


class TrainingStep:
    """A step of a setting; ``seen`` are the loads that were drawn for it, ``bare`` its passes with nothing around them."""

    def __init__(self, setting: Setting, step: int, pairwise: bool = False) -> None:
        self.setting, self.number, self.pairwise = setting, step, pairwise
        self.formats = setting.plan.precisions.at(step)
        self.update = Update(setting, self.formats)
        self.seen: list[Load] = []
        self.bare = Passes.of(setting, self.formats)

    @property
    def layout(self) -> Layout:
        """Where every rank lives."""
        return self.setting.layout

    @property
    def asynchronous(self) -> bool:
        """Whether updates happen within the pipeline, which never drains."""
        return self.setting.mesh.size("pp") > 1 and PIPELINES.find(self.setting.plan.pipeline).asynchronous

    @property
    def alike(self) -> bool:
        """Whether all micro-batches carry the same loads."""
        return not self.setting.model.experts or self.setting.plan.balancing.level

    @property
    def leaves_early(self) -> bool:
        """Whether layers' gradients are reduced, and go to the host, one by one."""
        return self.setting.plan.gradients_overlap or self.setting.plan.sharding.shards_gradients

    def flows(self, micro_batch: int) -> dict[int, Flow]:
        """What the layers with experts carry in a micro-batch."""
        return {layer: self.flow(layer, load) for layer, load in self.loads(micro_batch).items()}

    def loads(self, micro_batch: int) -> dict[int, Load]:
        """The loads of the layers with experts in a micro-batch, which are drawn now."""
        found = {}
        for layer, each in enumerate(self.setting.model.stack):
            if each.moe:
                loads = self.bare.experts[each.encoder].loads
                found[layer] = loads.sample(layer, self.number, micro_batch)
                if self.pairwise:
                    pairs = between(loads, layer, self.number, micro_batch)
                    found[layer] = replace(found[layer], pairs=pairs)
        self.seen += found.values()
        return found

    def flow(self, layer: int, load: Load) -> Flow:
        """What a layer carries."""
        return self.bare.experts[self.setting.model.stack[layer].encoder].flow(load)

    def passes(self, last: bool, layers: tuple[int, ...] | None = None, split: str = "", first: bool = False) -> Passes:
        """The passes of a micro-batch (``first`` or ``last`` of the step) through these layers, with what happens around them.

        ``split`` is B or W where backward passes are split: only the second then completes gradients.
        """
        mine = tuple(range(len(self.setting.model.stack))) if layers is None else layers
        return replace(self.bare, around=tuple(self.around(last, mine, split, first)))

    def around(self, last: bool, layers: tuple[int, ...], split: str, first: bool) -> list[LayerHook]:
        """What happens around the layers of these passes."""
        plan, found = self.setting.plan, list[LayerHook]()
        if split != "W":
            if plan.sharding.shards_weights or plan.offloads & {"parameters", "experts"}:
                found.append(Fetched(self.update, layers))
            if first and plan.weights_overlap:
                found.append(Gathered(self.update, layers))
            if "activations" in plan.offloads:
                found.append(Activations(self.setting, self.bare.stacks))
        each_time = plan.sharding.shards_gradients
        reduce = each_time or (last and plan.gradients_overlap)
        if reduce and split != "B":
            found.append(Early(self.update, reduce))
        return found
