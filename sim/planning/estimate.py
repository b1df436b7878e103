"""Step time and memory of a plan in closed form: the sums of its parts, most of which other plans have as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...hardware.errors import AthanorError, InputError
from ...hardware.precisions import BYTES
from ...workloads.lowering.data_parallel.sharding import layers_of
from ...workloads.lowering.layer.rank_share import Local
from ...workloads.memory.need import Memory
from ...workloads.mesh.mesh import Mesh
from ...workloads.mesh.placement import place
from ...workloads.model.model import Layer
from ...workloads.pipelines import find_pipeline
from ...workloads.plan.batch import Batch
from ...workloads.plan.compatibility import Given, check
from ...workloads.plan.plan import Plan
from ...workloads.plan.setting import Setting
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.work import Exchange
from .collective_times import CollectiveTimes, Wires
from .memory_estimate import Rooms
from .pass_times import PassTimes, WholeRank
from .pipeline_times import Lane, pipeline_seconds
from .question import Question
from .update_times import AroundTimes, Beside, Surroundings

Counts = Mapping[Layer, float]
"""Layers of each kind."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a step, and what a rank needs."""

    seconds: float
    memory: Memory


class Estimator:
    """Ranks plans of a question. What plans share is known once: passes through a layer, collectives, parts of the memory.

    A step is its micro-batches, by the formula of their pipeline, and the update. Passes take the seconds that the operations of
    the lowering take one after another; what runs beside them (``--overlap``) only what it exceeds them by.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        machine, per_node = question.machine, question.ranks_per_node
        processor = machine.processor(per_node)
        room = float("inf") if processor.host_memory is None else processor.host_memory
        self.costs, self.network = Costs(machine, per_node), CollectiveTimes(machine)
        self.passes, self.around = PassTimes(self.costs), Surroundings(self.costs)
        self.rooms = Rooms(question.memory, room)
        self._meshes: dict[tuple[Any, ...], Mesh] = {}
        self._wires: dict[tuple[Mesh, str], Wires | str] = {}
        self._counts: dict[tuple[int, int, str], list[Counts]] = {}
        self._plan = question.plan

    def setting(self, mesh: Mapping[str, int], options: Mapping[str, Any]) -> Setting:
        """The setting of a plan; raises :class:`InputError` where it is none."""
        question, plan = self.question, self._plan.changed(**{**options, "mesh": mesh})
        shape = self._mesh(mesh, plan)
        batch = Batch.of(plan, question.model, question.machine, shape, question.ranks_per_node)
        if batch.micro_tokens % batch.seq_len:
            raise InputError("--global-batch: is no whole number of sequences on each data-parallel rank")
        check(Given(question.model, plan, shape, batch, question.machine))
        return Setting(question.machine, question.model, plan, shape, batch, question.ranks_per_node)

    def memory(self, setting: Setting) -> Memory:
        """What a rank needs."""
        return self.rooms.need(setting, self.passes.loads(setting))

    def seconds(self, setting: Setting) -> float:
        """Seconds of a step; raises :class:`InputError` where ranks have no place on the machine."""
        wires = self.wires(setting)
        whole, around = self.passes.of(setting, wires), self.around.of(setting, wires)
        count = setting.batch.micro_batches
        stages = self._layers(setting)
        lanes = [self._lane(setting, whole, around, stages, stage) for stage in range(len(stages))]
        send = wires.seconds(self._activations(setting)) if len(lanes) > 1 else 0.0
        work = pipeline_seconds(setting.plan.pipeline, lanes, count, setting.plan.chunks, send)
        if not around.always:
            work += self._tail(setting, whole, around, stages, send)
        update = 0.0 if len(lanes) > 1 and setting.plan.pipeline == "pipedream" else around.update
        first, others = around.gathered  # before blocks nothing waits for the others' weights
        room = work if setting.composed else lanes[0].forward
        return max(work + first + max(0.0, others - room) + update, around.hidden)

    def estimate(self, mesh: Mapping[str, int], options: Mapping[str, Any]) -> Estimate:
        """Time and memory of a plan; raises :class:`InputError` where it is none."""
        setting = self.setting(mesh, options)
        return Estimate(self.seconds(setting), self.memory(setting))

    def wires(self, setting: Setting) -> Wires:
        """The collectives of a setting's layout."""
        placement = str(setting.plan.placement)
        key = (setting.mesh, placement)
        found = self._wires.get(key)
        if found is None:
            if len(self._wires) > KEPT_LAYOUTS:
                self._wires.clear()
            try:
                layout = place(
                    setting.mesh,
                    setting.machine,
                    setting.plan.placement,
                    setting.ranks_per_node,
                    setting.plan.nodes_per_supernode,
                )
                found = self.network.on(layout, placement)
            except AthanorError as reason:
                found = str(reason)
            self._wires[key] = found
        if isinstance(found, str):
            raise InputError(found)
        return found

    def _mesh(self, mesh: Mapping[str, int], plan: Plan) -> Mesh:
        key = (*mesh.items(), plan.tensor)
        if key not in self._meshes:
            made = Mesh.of(mesh)
            self._meshes[key] = made.gridded() if plan.tensor == "2d" and "tp" in made.axes else made
        return self._meshes[key]

    def _layers(self, setting: Setting) -> list[Counts]:
        """Layers of each kind in each stage."""
        stages = setting.mesh.size("pp")
        key = (stages, setting.plan.chunks if stages > 1 else 1, setting.plan.stage_layers)
        if key not in self._counts:
            stack, found = setting.model.stack, list[Counts]()
            for stage in range(stages):
                counts = dict[Layer, float]()
                for layer in layers_of(setting, stage):
                    counts[stack[layer]] = counts.get(stack[layer], 0.0) + 1.0
                found.append(counts)
            self._counts[key] = found
        return self._counts[key]

    def _lane(self, setting: Setting, whole: WholeRank, around: AroundTimes, stages: list[Counts], stage: int) -> Lane:
        """Seconds of a stage for one micro-batch: its layers, the embedding before the first stage, the output after the last."""
        parts = setting.plan.chunks if len(stages) > 1 else 1
        splits = len(stages) > 1 and find_pipeline(setting.plan.pipeline).splits_backward
        layers = [self._layer(whole, around, stages[stage], parts, splits)]
        if stage == 0:
            layers.append(whole.first)
        if stage == len(stages) - 1:
            layers.append(whole.last)
        if setting.plan.pipeline == "pipedream" and len(stages) > 1:
            layers.append(Lane(0.0, around.update))  # of every micro-batch
        return Lane(
            sum(each.forward for each in layers),
            sum(each.inputs for each in layers),
            sum(each.weights for each in layers),
        )

    def _layer(self, whole: WholeRank, around: AroundTimes, counts: Counts, parts: int, splits: bool) -> Lane:
        """Seconds of all layers of a stage with what acts around them, in so many parts.

        What comes or leaves beside a layer takes what it exceeds the layer by; nothing hides what comes first and leaves last in
        each part. Where the backward pass ``splits``, what leaves is there after its second half.
        """
        forward = inputs = around.ends
        weights = 0.0
        coming = going = late = 0.0
        for kind, count in counts.items():
            lane, hooks = whole.layers[kind], around.layers[kind]
            after = hooks.after if around.always else NOTHING
            if splits and around.always:
                weights += count * max(after.now, after.aside - lane.weights)
                late, after = max(late, after.aside), NOTHING
            there, beside = lane.forward + hooks.forward.now, hooks.backward.aside + after.aside
            back = lane.backward + hooks.backward.now + after.now
            forward += count * max(there, hooks.forward.aside)
            inputs += count * (max(back, beside) - lane.weights)
            weights += count * lane.weights
            coming, going = max(coming, hooks.forward.aside), max(going, beside)
        return Lane(forward + parts * coming, inputs + parts * going, weights + parts * late)

    def _tail(
        self, setting: Setting, whole: WholeRank, around: AroundTimes, stages: list[Counts], send: float
    ) -> float:
        """Seconds by which gradients that leave beside the last micro-batch's backward pass outlast it.

        Stages end one after another, the first one last, unless gradients of weights are put off. Of several chunks each is late.
        """
        tails, plan = [], setting.plan
        parts = plan.chunks if len(stages) > 1 else 1
        for counts in stages:
            leaving = work = single = least = 0.0
            for kind, count in counts.items():
                after, lane = around.layers[kind].after, whole.layers[kind]
                leaving, work = leaving + count / parts * after.aside, work + count / parts * lane.backward
                single, least = max(single, after.aside), max(least, lane.backward)
            tails.append(max(single, leaving - (work - least)))
        late, since = 0.0, 0.0
        for tail, counts in zip(tails, stages, strict=True):
            late = max(late, tail - since)
            if not find_pipeline(plan.pipeline).splits_backward:
                since += sum(count / parts * whole.layers[kind].backward for kind, count in counts.items()) + send
        return late + (parts - 1) * max(tails)

    def _activations(self, setting: Setting) -> Exchange:
        """What a stage hands to the next."""
        local = Local.of(setting, setting.plan.precisions.at(0))
        element = local.formats["norm"].compute
        return Exchange("shift", "next", ("pp",), local.stream * BYTES[element], element)


KEPT_LAYOUTS = 8
"""Layouts that are kept at once: a search goes from mesh to mesh."""

NOTHING = Beside()
