"""From a setting (machine, model and plan) to the Schedule of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ..gates import between
from ..limits import require_room
from ..loads import Load, LoadModel
from ..model import Model
from ..schedule import Schedule
from ..setting import Setting
from ..sharding import held
from .dense import Dense
from .experts import Experts, Flow
from .program import Program
from .update import Update


def lower(machine: str | Path | Machine, model: str | Path | Model, step: int = 0, **options: Any) -> Schedule:
    """The schedule of training step ``step`` of ``model`` on ``machine``, with the options of ``simulate()``.

    ``print()`` shows it, ``to_json()`` writes it, and an MPI runtime can execute it.
    """
    if step < 0:
        raise InputError(f"--step {step}: steps count from 0")
    setting = Setting.of(machine, model, options)
    require_room(setting)
    return lower_step(setting, step)[0]


def lower_step(setting: Setting, step: int = 0, pairwise: bool = False) -> tuple[Schedule, list[Load]]:
    """The schedule of training step ``step``, and the loads of its layers (micro-batch after micro-batch).

    With ``pairwise`` exchanges of tokens also say what goes from each rank to each other, where the mesh is small enough.

    A step is, for each micro-batch, the forward pass through all layers and the backward pass through them in reverse,
    then the reduction of gradients and the update. Everything that depends on the step (drifting routing, the precision
    of this iteration) is decided here.
    """
    model, plan, batch = setting.model, setting.plan, setting.batch
    formats = plan.precisions.at(step)
    loads = LoadModel(setting)
    dense = Dense(model, formats, batch.micro_tokens, batch.seq_len)
    layers = Layers(dense, Experts(dense, loads, plan.all_to_all), plan.recompute == "full")
    update = Update(model, setting.mesh, formats, plan.zero)
    program, seen = Program(setting.layout), []
    for micro_batch in range(batch.micro_batches):
        program.prefix = f"m{micro_batch}." if batch.micro_batches > 1 else ""
        layer_loads = [loads.sample(layer, step, micro_batch) for layer in range(model.layers)]
        if pairwise:
            layer_loads = [
                replace(load, pairs=between(loads, layer, step, micro_batch)) for layer, load in enumerate(layer_loads)
            ]
        seen += layer_loads
        flows = [layers.experts.flow(load) for load in layer_loads]
        layers.forward(program, flows)
        last = micro_batch == batch.micro_batches - 1
        layers.backward(program, flows, update if last and plan.overlap == "gradients" else None)
    program.phase, program.prefix = "update", ""
    holdings = held(model, setting.mesh)
    if plan.overlap == "gradients":
        rest = [each for each in holdings if each.part == "embedding"]
        update.synchronise(program, rest, "embedding.gradients", aside=True)
        program.join()
    else:
        update.synchronise(program, holdings, "gradients")
    update.step(program)
    return program.schedule(), seen


@dataclass(frozen=True)
class Layers:
    """The passes of one micro-batch through all layers."""

    dense: Dense
    experts: Experts
    recompute: bool

    def forward(self, program: Program, flows: list[Flow]) -> None:
        """Embedding, layers, output."""
        program.phase = "forward"
        self.dense.embed(program)
        for layer, flow in enumerate(flows):
            self.dense.attention(program, layer)
            self.experts.forward(program, layer, flow)
        self.dense.output(program)

    def backward(self, program: Program, flows: list[Flow], early: Update | None) -> None:
        """The way back; with ``early``, a layer's gradients are reduced beside the backward pass of the layers below."""
        program.phase = "backward"
        self.dense.output_backward(program)
        for layer, flow in reversed(list(enumerate(flows))):
            if self.recompute:
                before, program.prefix = program.prefix, f"{program.prefix}again."
                self.dense.attention(program, layer)
                self.experts.forward(program, layer, flow, balance=False)
                program.prefix = before
            self.experts.backward(program, layer, flow)
            self.dense.attention_backward(program, layer)
            if early:
                holdings = held(self.dense.model, program.layout.mesh, layers=1)
                early.synchronise(program, holdings, f"l{layer}.gradients", aside=True)
        self.dense.embed_backward(program)
