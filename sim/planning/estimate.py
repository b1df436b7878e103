"""Step time and memory of a plan in closed form: the sums of its parts, most of which other plans have as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

from ...hardware.errors import AthanorError, InputError
from ...workloads.lowering.data_parallel.sharding import holding_form
from ...workloads.lowering.layer.rank_share import Local
from ...workloads.lowering.pipeline_blocks import handed_on
from ...workloads.memory.need import Memory
from ...workloads.mesh.mesh import Mesh
from ...workloads.mesh.placement import place
from ...workloads.pipelines import StageSeconds
from ...workloads.plan.batch import Batch
from ...workloads.plan.checks import Checks
from ...workloads.plan.compatibility import Combination
from ...workloads.plan.expert_axes import divided
from ...workloads.plan.plan import Plan
from ...workloads.plan.setting import Setting
from ...workloads.schedule.costs import Costs
from .collective_times import CollectiveTimes, Wires
from .memory_estimate import Rooms
from .pass_times import PassTimes
from .pipeline_times import PipelineTimes, one_after_another
from .question import Question
from .step_times import ROUNDED, StepTimes


@dataclass(frozen=True)
class Estimate:
    """Seconds of a step, and what a rank needs."""

    seconds: float
    memory: Memory


@dataclass
class KnownChoices:
    """What plans have in common that differ in their micro-batches alone; ``setting`` is that of the first that is a plan."""

    plan: Plan
    mesh: Mesh
    checks: Checks
    setting: Setting | None = None


class Estimator:
    """Ranks plans of a question. What plans share is known once: passes through a layer, collectives, parts of the memory.

    A step is what the lowering makes of it: passes through a layer of each kind are lowered once for each shape of a rank's work
    and become spans; blocks, what acts around layers and what comes after them are lowered around these spans, and all begin and
    end as the engine lets them (:class:`~.timeline.SpanTimeline`). Micro-batches then go through their pipeline by its closed
    form. What shares links is not slowed down, and ranks that differ count as the slowest of them.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        machine, per_node = question.machine, question.ranks_per_node
        present = min(question.ranks, per_node)  # they alone share their node's host
        processor = machine.processor(per_node, present)
        room = float("inf") if processor.host_memory is None else processor.host_memory
        self.costs, self.network = Costs(machine, per_node, present), CollectiveTimes(machine)
        self.passes, self.pipelines = PassTimes(self.costs), PipelineTimes()
        self.steps = StepTimes(self.costs, self.passes)
        self.rooms = Rooms(question.memory, room)
        self._meshes: dict[tuple[Any, ...], Mesh] = {}
        self._wires: dict[tuple[Mesh, str], Wires | InputError] = {}
        self._choices: dict[tuple[Any, ...], KnownChoices] = {}
        self._holdings: dict[tuple[Any, ...], dict[Any, Any]] = {}
        self._messages: dict[tuple[Any, ...], tuple[float, float]] = {}
        self._plan = question.plan

    def setting(self, mesh: Mapping[str, int], options: Mapping[str, Any]) -> Setting:
        """The setting of a plan; raises :class:`InputError` where it is none."""
        question, known = self.question, self._chosen(mesh, options)
        plan = known.plan.resized(options["micro_batch"]) if "micro_batch" in options else known.plan
        batch = Batch.of(plan, question.model, question.machine, known.mesh, question.ranks_per_node)
        if batch.micro_tokens % batch.seq_len:
            raise InputError(UNEVEN, UNEVEN)
        known.checks.of(batch)
        if known.setting:
            return known.setting.resized(plan, batch)
        found = Setting(question.machine, question.model, plan, known.mesh, batch, question.ranks_per_node)
        form = holding_form(found)
        if form not in self._holdings:
            if len(self._holdings) > KEPT_HOLDINGS:
                self._holdings.clear()
            self._holdings[form] = {}
        known.setting = found.sharing_holdings(self._holdings[form]).with_parts()
        return found

    def _chosen(self, mesh: Mapping[str, int], options: Mapping[str, Any]) -> KnownChoices:
        """What plans have in common that differ in their micro-batches alone."""
        values = [str(each) if type(each) is dict else each for name, each in options.items() if name != "micro_batch"]
        key = (*mesh.items(), *options, *values)
        found = self._choices.get(key)
        if found is None:
            if len(self._choices) > KEPT_CHOICES:
                self._choices.clear()
            plan, question = self._plan.changed(**{**options, "mesh": mesh}), self.question
            _ = (
                plan.precisions,
                plan.sharding,
                plan.offloads,
                plan.recomputation,
                plan.recomputed_layers,
            )  # for all of them
            shape = self._mesh(mesh, plan)
            checks = Checks(Combination(question.model, plan, shape, question.machine), question.seq_len)
            found = self._choices[key] = KnownChoices(plan, shape, checks)
        return found

    def memory(self, setting: Setting) -> Memory:
        """What a rank needs."""
        return self.rooms.need(setting, self.passes.loads(setting))

    @overload
    def seconds(self, setting: Setting) -> float: ...

    @overload
    def seconds(self, setting: Setting, worth: Callable[[float], bool]) -> float | None: ...

    def seconds(self, setting: Setting, worth: Callable[[float], bool] | None = None) -> float | None:
        """Seconds of a step; raises :class:`InputError` where ranks have no place on the machine.

        ``worth`` is asked with seconds that it takes at least, and None stands for an answer that is not: those of the passes
        alone, and again where seconds can only be found by playing a pipeline's order.
        """
        wires, count, stages = self.wires(setting), setting.batch.micro_batches, setting.mesh.size("pp")
        if worth:
            least = self.steps.least(setting, wires)
            if not worth(least) or not worth(ROUNDED * self.steps.whole(setting, wires, least)):
                return None
        parts = self.steps.parts(setting, wires)
        if stages == 1:
            work = one_after_another(parts, count) + self.steps.first_forward(setting, wires)
            return self.steps.whole(setting, wires, work)
        pipeline, of_stages = (
            self.steps.pipeline(setting),
            StageSeconds(parts, stages, *self._hand_over(setting, wires)),
        )
        found = None if of_stages.crowded else pipeline.step_seconds(of_stages, count)
        if found is None:
            if worth and not worth(
                ROUNDED * self.steps.whole(setting, wires, pipeline.least_seconds(of_stages, count))
            ):
                return None
            found = self.pipelines.played(pipeline, of_stages, count)
        return self.steps.whole(setting, wires, found)

    def _hand_over(self, setting: Setting, wires: Wires) -> tuple[float, float]:
        """Seconds of a message between stages, and those in which its bytes pass; known for what ranks pass on."""
        wraps = setting.plan.chunks > 1 and not setting.folded
        key = (self.passes.of(setting, wires).number, wires.shape(("pp",)), setting.plan.scatter_gather, wraps)
        if key not in self._messages:
            local = Local.of(setting, setting.plan.precisions.at(0), decoder=True)
            self._messages[key] = wires.hand_over(handed_on(setting, local), wraps)
        return self._messages[key]

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
                found = InputError(str(reason), "ranks have no place on the machine")
            self._wires[key] = found
        if isinstance(found, InputError):
            raise found
        return found

    def _mesh(self, mesh: Mapping[str, int], plan: Plan) -> Mesh:
        key = (*mesh.items(), plan.tensor, plan.expert_tensor, plan.expert_context)
        if key not in self._meshes:
            made = Mesh.of(mesh)
            made = made.gridded() if plan.tensor == "2d" and "tp" in made.axes else made
            self._meshes[key] = divided(plan, made) if self.question.model.experts else made
        return self._meshes[key]


KEPT_LAYOUTS = 8
"""Layouts that are kept at once: a search goes from mesh to mesh."""

KEPT_CHOICES = 2_000
"""Combinations of choices that are kept at once: those of a mesh come again for each size of micro-batches."""

KEPT_HOLDINGS = 200
"""Kinds of what ranks hold that are kept at once: those of a mesh come again."""

UNEVEN = "--global-batch: no whole number of sequences on each data-parallel rank"
