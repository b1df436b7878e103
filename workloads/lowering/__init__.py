"""From a setting (machine, model and plan) to the Schedule of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...hardware.machine import Machine
from ..loads import Load, LoadModel
from ..model import Model
from ..schedule import Schedule
from ..setting import Setting
from .dense import Dense
from .experts import Experts, Flow
from .program import Program
from .update import Update, held


def lower(machine: str | Path | Machine, model: str | Path | Model, step: int = 0, **options: Any) -> Schedule:
    """The schedule of training step ``step`` of ``model`` on ``machine``, with the options of ``simulate()``.

    ``print()`` shows it, ``to_json()`` writes it, and an MPI runtime can execute it.
    """
    return lower_step(Setting.of(machine, model, options), step)[0]


def lower_step(setting: Setting, step: int = 0) -> tuple[Schedule, list[Load]]:
    """The schedule of training step ``step``, and the loads of its layers (micro-batch after micro-batch).

    A step is, for each micro-batch, the forward pass through all layers and the backward pass through them in reverse,
    then the reduction of gradients and the update. Everything that depends on the step (drifting routing, the
    precision of this iteration) is decided here.
    """
    model, plan, mesh, batch = setting.model, setting.plan, setting.mesh, setting.batch
    formats = plan.precisions.at(step)
    dense = Dense(model, formats, batch.micro_tokens, batch.seq_len)
    loads = LoadModel(setting)
    experts = Experts(dense, loads, plan.all_to_all)
    update = Update(model, mesh, formats, plan.zero)
    program, seen = Program(mesh), []
    for micro_batch in range(batch.micro_batches):
        layer_loads = [loads.sample(layer, step, micro_batch) for layer in range(model.layers)]
        seen += layer_loads
        flows = [experts.flow(load) for load in layer_loads]
        _forward(program, dense, experts, flows)
        early = plan.overlap == "gradients" and micro_batch == batch.micro_batches - 1
        _backward(program, dense, experts, flows, plan.recompute == "full", update if early else None)
    program.phase = "update"
    if plan.overlap == "gradients":
        update.synchronise(
            program, [share for share in held(model, mesh) if share.part == "embedding"], "rest", aside=True
        )
        program.join()
    else:
        update.synchronise(program, held(model, mesh), "gradients")
    update.step(program)
    return program.schedule(), seen


def _forward(program: Program, dense: Dense, experts: Experts, flows: list[Flow]) -> None:
    program.phase = "forward"
    dense.embed(program)
    for layer, flow in enumerate(flows):
        dense.attention(program, layer)
        experts.forward(program, layer, flow)
    dense.output(program)


def _backward(
    program: Program, dense: Dense, experts: Experts, flows: list[Flow], recompute: bool, early: Update | None
) -> None:
    """The backward pass; with ``early``, a layer's gradients are reduced beside the backward pass of the layers below."""
    program.phase = "backward"
    dense.output_backward(program)
    for layer, flow in reversed(list(enumerate(flows))):
        if recompute:
            dense.attention(program, layer)
            experts.forward(program, layer, flow, balance=False)
        experts.backward(program, layer, flow)
        dense.attention_backward(program, layer)
        if early:
            early.synchronise(program, held(dense.model, program.mesh, layers=1), f"l{layer}.gradients", aside=True)
    dense.embed_backward(program)
