"""From a setting (machine, model and plan) to the Schedule of a step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import inf
from pathlib import Path
from typing import Unpack

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ..loads.loads import Load, LoadModel
from ..model.model import Model
from ..plan.form import schedule_form
from ..plan.plan_options import PlanOptions
from ..plan.run_file import resolved
from ..plan.setting import Setting
from ..plan.signatures import documented
from ..schedule.filled import FilledOnDemand
from ..schedule.operation import Role, Task
from ..schedule.schedule import Schedule
from ..schedule.work import HostCopy, PipelineWork
from .block_templates import Template
from .builder import Program
from .data_parallel.offload import gradient_bytes, host_update, weights_out
from .data_parallel.sharding import held, held_beside_layers
from .data_parallel.weight_gathering import Gathered
from .layer.adapters import makes
from .layer.moe import Flow
from .pipeline_blocks import pipeline
from .simulator_memory import require_room
from .step import TrainingStep


@documented()
def lower(
    machine: str | Path | Machine,
    model: str | Path | Model | None = None,
    step: int = 0,
    **options: Unpack[PlanOptions],
) -> Schedule:
    """The schedule of training step ``step`` of ``model`` on ``machine``, or of a run file, as ``simulate()`` takes them.

    ``print()`` shows it, ``to_json()`` writes it, and an MPI runtime can execute it.
    """
    if step < 0:
        raise InputError(f"--step {step}: steps count from 0")
    machine, model, chosen, _ = resolved(machine, model, options, None)
    setting = Setting.of(machine, model, chosen)
    require_room(setting)
    return lower_step(setting, step)[0]


def lower_step(setting: Setting, step: int = 0, pairwise: bool = False) -> tuple[Schedule, list[Load]]:
    """The schedule of training step ``step``, and the loads of its layers with experts (micro-batch after micro-batch).

    With ``pairwise`` exchanges of tokens also say what goes from each rank to each other, where the mesh is small enough.

    A step is, for each micro-batch, the forward pass through all layers and the backward pass through them in reverse,
    then the reduction of gradients and the update. Everything that depends on the step (drifting routing, the precision
    of this iteration) is decided here. Micro-batches are written out one after another, or, in pipelines and where they are many
    and alike, as blocks and their order (:attr:`Setting.composed`).
    """
    if setting.kept:
        key = (*lowered_form(setting), step, pairwise)
        return setting.kept.of("schedule", key, lambda: _lowered(setting, step, pairwise), _weight)
    return _lowered(setting, step, pairwise)


def lowered_form(setting: Setting) -> tuple[Hashable, ...]:
    """What decides the schedules of a setting, beside the step's number, loads of experts among it."""
    return (schedule_form(setting), LoadModel(setting).form if setting.model.experts else ())


def _weight(made: tuple[Schedule, list[Load]]) -> float:
    """The operations of a schedule, in blocks too; those that are filled in on demand hold on to their settings: not kept."""
    operations = made[0].operations
    if isinstance(operations, FilledOnDemand):
        return inf
    blocks = [block for each in operations if isinstance(each.work, PipelineWork) for block in each.work.blocks]
    return float(len(operations) + sum(len(block) for block in blocks))


def _lowered(setting: Setting, step: int, pairwise: bool) -> tuple[Schedule, list[Load]]:
    this = TrainingStep(setting, step, pairwise)
    if not setting.composed:
        return _one_after_another(this), this.seen
    program = _program(this)
    if setting.plan.weights_overlap:
        Gathered.ahead(program, this.update)
    program.add(Task(Role.MICRO_BATCHES), pipeline(this))
    program.phase, program.micro_batch = "update", None
    if not this.asynchronous:
        finish(program, this)
    return program.schedule(), this.seen


def _program(this: TrainingStep) -> Program:
    """An empty one."""
    setting = this.setting
    plan = setting.plan
    return Program(
        this.layout,
        beside_products=plan.tensor_overlap,
        beside_weights=plan.tensor_async,
        makes=makes(setting.model),
    )


def _one_after_another(this: TrainingStep) -> Schedule:
    """Every micro-batch in full. Where loads differ, steps in the same formats differ in these alone: they share a template."""
    count = this.setting.batch.micro_batches
    if this.alike:
        return _written(this, [this.flows(micro_batch) for micro_batch in range(count)])
    loads, known = [this.loads(micro_batch) for micro_batch in range(count)], this.setting.lowered
    form = tuple(this.formats.items())
    if form not in known:
        lacking = [{layer: this.flow(layer, load).lacking() for layer, load in each.items()} for each in loads]
        schedule = _written(this, lacking)
        by_place = {(number, layer): flow for number, each in enumerate(lacking) for layer, flow in each.items()}
        known[form] = Template.of(tuple(schedule.operations), by_place), schedule.notes
    template, notes = known[form]

    def flow(place: tuple[int, int]) -> Flow:
        micro_batch, layer = place
        return this.flow(layer, loads[micro_batch][layer])

    def mean(place: tuple[int, int]) -> Flow:
        micro_batch, layer = place
        return this.flow(layer, loads[micro_batch][layer].mean)

    return Schedule(this.layout, template.on_demand(flow, mean), notes)


def _written(this: TrainingStep, flows: Sequence[dict[int, Flow]]) -> Schedule:
    """The schedule of a step whose micro-batches carry this."""
    program = _program(this)
    count, layers = len(flows), range(len(this.setting.model.stack))
    for micro_batch, carried in enumerate(flows):
        program.micro_batch = micro_batch if count > 1 else None
        passes = this.passes(last=micro_batch == count - 1, first=micro_batch == 0)
        passes.forward(program, layers, carried)
        passes.backward(program, layers, carried)
        program.join()
    program.phase, program.micro_batch = "update", None
    finish(program, this)
    return program.schedule()


def finish(program: Program, this: TrainingStep) -> None:
    """What is left of the reduction of gradients, and the update."""
    setting, update = this.setting, this.update
    update.tied(program)  # before shards are cut, which lie elsewhere in the vector of another stage
    if this.leaves_early:
        update.synchronise(program, held_beside_layers(setting), Task(part="ends"), aside=True)
        program.join()
    else:
        update.synchronise(program, held(setting), Task())
    update.norms(program)
    if "optimizer" in setting.plan.offloads:
        left = held_beside_layers(setting) if this.leaves_early else held(setting)
        gradients = HostCopy(gradient_bytes(setting, update.formats, left), "out")
        program.add(Task(Role.GRADIENT_OFFLOAD, gradient="weight"), gradients, "offload", "gradients.out")
        update.bookkeep(program)
        host_update(program, update)
        update.gather(program)
    else:
        update.step(program)
    if setting.plan.offloads & {"parameters", "experts"}:
        weights_out(program, update)
