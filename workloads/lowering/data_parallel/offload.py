"""What lies in host memory: optimizer state with its update on the host's cores, gradients on their way there, activations.

ZeRO-Offload keeps master weights and moments on the host: gradients go out as they are reduced, the optimizer runs on the
host's cores, bound by its memory, and new weights come back (Ren et al. 2021). With ``--offload-delay`` the update of one step
runs beside the next step, whose weights are one update old (their section 5.2). Parameters and experts are fetched by
:mod:`.weight_gathering`; what
an update changes of them goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ....hardware.precisions import BYTES
from ...model.precision import Formats, Part
from ...plan.setting import Setting
from ...schedule.operation import Role, Task
from ...schedule.work import Amount, HostCopy, HostSweep
from ..builder import HOST, HOST_IN, HOST_OUT, Program
from ..layer.layer_hooks import LayerHook
from ..layer.rank_share import Local
from .gradient_sync import Update
from .held_tensors import HeldTensors, held_tensors
from .sharding import Holding, held_of_layer, shards, trained
from .weight_gathering import offloaded


@dataclass(frozen=True)
class Early(LayerHook):
    """Acts on a layer's gradients once they are complete: reduces them, a bucket a layer, and sends them to the host."""

    update: Update
    reduce: bool

    def after_backward(self, program: Program, layer: int) -> None:
        """The layer's gradients are complete."""
        setting = self.update.setting
        holdings = held_of_layer(setting, layer)
        aside = setting.plan.gradients_overlap
        number = None
        if self.reduce:
            number = self.update.synchronise(program, holdings, Task(layer=layer), aside=aside)
        if "optimizer" in setting.plan.offloads:
            copy = HostCopy(gradient_bytes(setting, self.update.formats, holdings), "out")
            task = Task(Role.GRADIENT_OFFLOAD, layer=layer, gradient="weight")
            if aside:
                program.aside(task, copy, "offload", HOST_OUT, number, "gradients.out")
            else:
                program.add(task, copy, "offload", "gradients.out")


@dataclass(frozen=True)
class Activations(LayerHook):
    """Sends the input of each layer to the host after its forward pass, and fetches it before its backward pass."""

    setting: Setting
    stacks: Mapping[bool, Local]
    _gone: dict[int, int] = field(default_factory=dict)

    def before(self, program: Program, layer: int, again: bool) -> None:
        """Backward, the input comes back."""
        if again:
            after = self._gone.pop(layer, None)
            task, copy = Task(Role.ACTIVATION_FETCH, layer=layer), HostCopy(self._bytes(layer), "in")
            number = program.aside(task, copy, "offload", HOST_IN, after, "input.in")
            program.need(number)

    def after_forward(self, program: Program, layer: int) -> None:
        """Forward, it leaves."""
        task, copy = Task(Role.ACTIVATION_OFFLOAD, layer=layer), HostCopy(self._bytes(layer), "out")
        self._gone[layer] = program.aside(task, copy, "offload", HOST_OUT, label="input.out")

    def _bytes(self, layer: int) -> float:
        local = self.stacks[self.setting.model.stack[layer].encoder]
        return self.setting.plan.offload_shares["activations"] * local.stream * BYTES[local.formats["norm"].compute]


def host_update(program: Program, update: Update) -> None:
    """The optimizer on the host, and new weights back to the accelerators; beside the whole step where it is delayed by one.

    Where only a share of the optimizer's state lies with the host, accelerators update the rest.
    """
    setting = update.setting
    share, number = setting.plan.offload_shares["optimizer"], None
    tensors = held_tensors(setting)
    for each in trained(setting):
        if share < 1:
            for step in update.optimizer(program, tensors, each, 1 - share):
                program.add(Task(Role.OPTIMIZER, each.part), step.work, "optimizer", step.label)
        sweep = _host_sweep(update, tensors, each, share)
        task, label = Task(Role.HOST_OPTIMIZER, each.part), f"update.host.{each.part}"
        if setting.plan.offload_delay:
            number = program.at_once(task, sweep, "offload", HOST, label)
        else:
            program.add(task, sweep, "offload", label)
    copy = HostCopy(share * _weight_bytes(update, stays=True), "in")
    task, label = Task(Role.WEIGHT_FETCH), "update.weights.in"
    if setting.plan.offload_delay:
        program.need(program.aside(task, copy, "offload", HOST_IN, number, label))
    else:
        program.add(task, copy, "offload", label)


def weights_out(program: Program, update: Update) -> None:
    """New weights go to where they lie, in host memory, as far as they were not made there."""
    share = update.setting.plan.offload_shares.get("optimizer", 0.0)
    made_here = (
        1.0 if update.setting.plan.sharding.gathers_updates else 1.0 - share
    )  # gathered on accelerators, or updated there
    if made_here:
        copy = HostCopy(made_here * _weight_bytes(update, stays=False), "out")
        program.add(Task(Role.WEIGHT_RETURN), copy, "offload", "update.weights.out")


def gradient_bytes(setting: Setting, formats: Mapping[Part, Formats], holdings: list[Holding]) -> Amount:
    """Bytes of the rank's share of these gradients, as far as the host updates with them."""
    away = setting.plan.offload_shares["optimizer"]
    parts = [
        each.parameters * BYTES[formats[each.part].gradient] / shards(setting, each)
        for each in trained(setting, holdings)
    ]
    return away * sum(parts, start=0.0)


def _weight_bytes(update: Update, stays: bool) -> Amount:
    """Bytes of new weights that an accelerator needs, or else of those that lie in its host's memory.

    Where shards come together on the accelerators (ZeRO 1 and 2), they need their shards of all weights, and hosts whole ones.
    """
    setting, found = update.setting, list[Amount]()
    gathered = setting.plan.sharding.gathers_updates
    for each in trained(setting):
        away = 0.0 if each.part == "embedding" else offloaded(each.part, setting.plan.offload_shares)
        parts = shards(setting, each) if stays or not gathered else 1
        share = (1.0 if gathered else 1.0 - away) if stays else away
        found.append(share * each.parameters * BYTES[update.formats[each.part].weight] / parts)
    return sum(found, start=0.0)


def _host_sweep(update: Update, tensors: HeldTensors, holding: Holding, share: float) -> HostSweep:
    """The update of a ``share`` of a holding on the host: where tensors have rules of their own, the mean of their bytes."""
    setting, formats = update.setting, update.formats[holding.part]
    mine = share * holding.parameters / shards(setting, holding)
    counts = [(float(np.mean(each.parameters)), each.rule.host_bytes(formats)) for each in tensors.ruled(holding)]
    total = sum(count for count, _ in counts)
    return HostSweep(mine, float(sum(count / total * nbytes for count, nbytes in counts)))
