"""Micro-batches as blocks: what each virtual stage does in a pass, written once, and the order of a pipeline around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...hardware.precisions import BYTES
from ..pipelines import PIPELINES
from ..plan.setting import Setting
from ..schedule.operation import COMPUTE, LAUNCH, Block, Operation, Role, Task
from ..schedule.work import Exchange, PipelineWork
from .block_templates import Template
from .builder import COMMUNICATION, Program
from .data_parallel.sharding import held, last_of, parts_of
from .layer.adapters import makes
from .layer.moe import Flow
from .layer.rank_share import Local
from .step import TrainingStep


def pipeline(this: TrainingStep) -> PipelineWork:
    """The pipeline of a step; with one stage, its micro-batches one after another."""
    setting = this.setting
    stages = setting.mesh.size("pp")
    name = setting.plan.pipeline if stages > 1 else "1f1b"
    chosen = PIPELINES.find(name)
    chunks, count = setting.plan.chunks, setting.batch.micro_batches
    blocks = PipelineBlocks(this)
    flows = [this.flows(micro_batch) for micro_batch in range(1 if this.alike else count)]
    uses = tuple(blocks.uses(virtual, chosen.splits_backward, count, flows) for virtual in range(stages * chunks))
    return PipelineWork(
        name=name,
        stages=stages,
        micro_batches=count,
        chunks=chunks,
        blocks=tuple(blocks.made),
        uses=uses,
        first_layer=tuple(part.start for part in blocks.parts),
        activations=handed_on(setting, this.bare.stacks[False]) if stages > 1 else None,
        along=tuple(stages if axis == "pp" else 1 for axis in setting.mesh.axes),
    )


def placed(task: Task, first_layer: int, micro_batch: int) -> Task:
    """The task of a block's operation in the step: of its micro-batch, and with layers counted through the whole model."""
    layer = None if task.layer is None else task.layer + first_layer
    return replace(task, micro_batch=micro_batch, layer=layer)


def hands_on(operation: Operation) -> bool:
    """Whether what a block passes on rests on this operation: not on an update, nor on what runs beside the passes."""
    return operation.stream in (COMPUTE, COMMUNICATION, LAUNCH) and operation.phase != "update"


def last_differs(setting: Setting) -> bool:
    """Whether the last micro-batch does more than others: early reductions, or the update of an endless pipeline."""
    plan = setting.plan
    if plan.gradients_overlap and not plan.sharding.shards_gradients:
        return True
    pipeline = PIPELINES.find(plan.pipeline)
    return setting.mesh.size("pp") > 1 and pipeline.asynchronous and not pipeline.updates_each_micro_batch


class PipelineBlocks:
    """Collects blocks; passes that are alike share one, and those that differ in loads alone a :class:`Template`."""

    def __init__(self, this: TrainingStep) -> None:
        self.this, self.last = this, last_of(this.setting)
        self.parts = parts_of(this.setting)
        self.made: list[Block] = []
        self._known: dict[object, int] = {}
        self._templates: dict[object, Template] = {}

    def uses(self, virtual: int, split: bool, count: int, flows: list[dict[int, Flow]]) -> tuple[tuple[int, ...], ...]:
        """Numbers of the blocks of each pass of a virtual stage, by micro-batch; one where all are alike."""
        passes = ("F", "B", "W") if split else ("F", "B")
        found = []
        for which in passes:
            alike = len(flows) == 1 and (which == "F" or not self.last_differs)
            number = [
                self._block(virtual, which, split, micro_batch, at == count - 1)
                for at in ((0,) if alike else range(count))
                for micro_batch in (flows[at % len(flows)],)
            ]
            found.append(tuple(number))
        return tuple(found)

    @property
    def last_differs(self) -> bool:
        """Whether the last micro-batch does more than the others."""
        return last_differs(self.this.setting)

    def _block(self, virtual: int, which: str, split: bool, flows: dict[int, Flow], last: bool) -> int:
        layers = self.parts[virtual]
        stack = self.this.setting.stack
        ends = (virtual == 0, virtual == self.last)
        carried = tuple(flows[layer] for layer in layers if layer in flows) if not self.this.alike else ()
        key = (which, tuple(stack[layer] for layer in layers), ends, carried, last and self.last_differs)
        if key not in self._known:
            self._known[key] = len(self.made)
            if carried:
                form = (*key[:3], tuple(layer in flows for layer in layers), key[4])
                if form not in self._templates:
                    lacking = {layer: flow.lacking() for layer, flow in flows.items() if layer in layers}
                    block = self.make(layers, which, split, ends, lacking, last)
                    self._templates[form] = Template.of(block, {at - layers.start: lacking[at] for at in lacking})
                self.made.append(self._templates[form].filled(lambda at: flows[layers.start + at]))
            else:
                self.made.append(self.make(layers, which, split, ends, flows, last))
        return self._known[key]

    def make(
        self,
        layers: range,
        which: str,
        split: bool,
        ends: tuple[bool, bool],
        flows: dict[int, Flow],
        last: bool,
        first: bool = False,
    ) -> Block:
        """What a stage with these layers (and ends) does in a pass, of the ``first``, the ``last`` or another micro-batch."""
        this = self.this
        plan = this.setting.plan
        beside = plan.tensor_overlap, plan.tensor_async and not split
        program = Program(this.layout, _wanted(which, split), *beside, makes(this.setting.model))
        passes = this.passes(last, tuple(layers), which if split else "", first)
        if self._gathers(which, ends):
            self._gather(program, which)
        if which == "F":
            passes.forward(program, layers, flows, *ends)
        else:
            passes.backward(program, layers, flows, *ends)
        if self._updates(which, split, last):
            program.phase = "update"
            this.update.synchronise(program, held(this.setting), Task())
            this.update.step(program)
        return tuple(_counted_from(each, layers.start) for each in program.schedule().operations)

    def bare(self, which: str, split: bool, ends: tuple[bool, bool], last: bool, first: bool = False) -> bool:
        """Whether a block that :meth:`make` makes is nothing but the passes through its layers, whichever these are."""
        around = self.this.around(last, (), which if split else "", first)
        return not (around or self._gathers(which, ends) or self._updates(which, split, last))

    def _gathers(self, which: str, ends: tuple[bool, bool]) -> bool:
        """Whether what comes from another stage is put together first."""
        return which != "W" and not ends[0 if which == "F" else 1] and _scattered(self.this.setting) > 1

    def _updates(self, which: str, split: bool, last: bool) -> bool:
        """Whether weights are updated within the pipeline, after this block."""
        return which == ("W" if split else "B") and self.this.asynchronous and (last or not self.last_differs)

    def _gather(self, program: Program, which: str) -> None:
        """Ranks of tp put together what each has received a part of."""
        program.phase = "forward" if which == "F" else "backward"
        local = self.this.bare.stacks[False]
        element = local.formats["norm"].compute
        whole = Exchange("all-gather", "ring", ("tp",), local.stream * BYTES[element], element)
        task = Task(Role.STAGE_GATHER, "stage", gradient=None if which == "F" else "input")
        program.add(task, whole, "tensor_parallel")


def _scattered(setting: Setting) -> int:
    """Into how many parts what stages pass on is cut (scatter and gather, Narayanan et al. 2021, section 4.1).

    Each rank of tp has all of it; under sequence parallelism and on a grid each has its own part anyhow.
    """
    plan = setting.plan
    return setting.mesh.size("tp") if plan.scatter_gather and not plan.sequence_parallel else 1


def _counted_from(operation: Operation, first_layer: int) -> Operation:
    """An operation whose layer counts from the first one of its stage."""
    if operation.task.layer is None:
        return operation
    return replace(operation, task=replace(operation.task, layer=operation.task.layer - first_layer))


def _wanted(which: str, split: bool) -> Callable[[Task], bool]:
    """Which operations of a backward pass belong to its half: W makes gradients of weights, B all else (Qi et al. 2023)."""
    if not split or which == "F":
        return lambda task: True
    return (lambda task: task.of_weights) if which == "W" else lambda task: not task.of_weights


def handed_on(setting: Setting, local: Local) -> Exchange:
    """What a stage passes on: its part of the residual stream, of the decoder's tokens where there are two kinds."""
    element = local.formats["norm"].compute
    return Exchange("shift", "next", ("pp",), local.stream * BYTES[element] / _scattered(setting), element)
