"""What lies in host memory: optimizer state with its update on the host's cores, gradients on their way there, activations.

ZeRO-Offload keeps master weights and moments on the host: gradients go out as they are reduced, Adam runs on the host's cores,
bound by its memory, and new weights come back (Ren et al. 2021). With ``--offload-delay`` the update of one step runs beside
the next step, whose weights are one update old (their section 5.2). Parameters and experts are fetched by :mod:`.weights`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...hardware.precisions import BYTES
from ..precision import Formats, Part
from ..schedule import Amount, HostCopy, HostSweep
from ..setting import Setting
from ..sharding import Holding, held, held_of_layer, shards
from .local import Local
from .program import HOST, HOST_IN, HOST_OUT, Program
from .update import Update


@dataclass(frozen=True)
class Early:
    """Acts on a layer's gradients once they are complete: reduces them, a bucket a layer, and sends them to the host."""

    update: Update
    reduce: bool

    def before(self, program: Program, layer: int, again: bool) -> None:
        """Nothing has to be at hand."""

    def after_forward(self, program: Program, layer: int) -> None:
        """Nothing leaves."""

    def after_backward(self, program: Program, layer: int) -> None:
        """The layer's gradients are complete."""
        setting = self.update.setting
        holdings = held_of_layer(setting, layer)
        aside = setting.plan.overlap == "gradients"
        number = None
        if self.reduce:
            number = self.update.synchronise(program, holdings, f"l{layer}.gradients", aside=aside)
        if "optimizer" in setting.plan.offloads:
            copy = HostCopy(gradient_bytes(setting, self.update.formats, holdings), "out")
            if aside:
                program.aside(f"l{layer}.gradients.out", copy, "offload", HOST_OUT, number)
            else:
                program.add(f"l{layer}.gradients.out", copy, "offload")


@dataclass(frozen=True)
class Activations:
    """Sends the input of each layer to the host after its forward pass, and fetches it before its backward pass."""

    setting: Setting
    stacks: dict[bool, Local]
    _gone: dict[int, int] = field(default_factory=dict)

    def before(self, program: Program, layer: int, again: bool) -> None:
        """Backward, the input comes back."""
        if again:
            after = self._gone.pop(layer, None)
            number = program.aside(f"l{layer}.input.in", HostCopy(self._bytes(layer), "in"), "offload", HOST_IN, after)
            program.need(number)

    def after_forward(self, program: Program, layer: int) -> None:
        """Forward, it leaves."""
        self._gone[layer] = program.aside(
            f"l{layer}.input.out", HostCopy(self._bytes(layer), "out"), "offload", HOST_OUT
        )

    def after_backward(self, program: Program, layer: int) -> None:
        """Nothing leaves."""

    def _bytes(self, layer: int) -> float:
        local = self.stacks[self.setting.model.stack[layer].encoder]
        return self.setting.plan.offloads["activations"] * local.stream * BYTES[local.formats["norm"].compute]


def host_update(program: Program, update: Update) -> None:
    """Adam on the host, and new weights back to the accelerators; beside the whole step where it is delayed by one.

    Where only a share of the optimizer's state lies with the host, accelerators update the rest.
    """
    setting, formats = update.setting, update.formats
    share = setting.plan.offloads["optimizer"]
    for each in held(setting):
        if share < 1:
            own = update.adam(each)
            program.add(f"update.adam.{each.part}", replace(own, size=(1 - share) * own.size), "optimizer")
        mine = share * each.parameters / shards(setting, each)
        sweep = HostSweep(mine, float(_adam_bytes(formats[each.part])))
        if setting.plan.offload_delay:
            program.at_once(f"update.host.{each.part}", sweep, "offload", HOST)
        else:
            program.add(f"update.host.{each.part}", sweep, "offload")
    copy = HostCopy(share * weight_bytes(setting, formats), "in")
    if setting.plan.offload_delay:
        program.aside("update.weights.in", copy, "offload", HOST_IN)
    else:
        program.add("update.weights.in", copy, "offload")


def gradient_bytes(setting: Setting, formats: dict[Part, Formats], holdings: list[Holding]) -> Amount:
    """Bytes of the rank's share of these gradients, as far as the host updates with them."""
    away = setting.plan.offloads["optimizer"]
    parts = [each.parameters * BYTES[formats[each.part].gradient] / shards(setting, each) for each in holdings]
    return away * sum(parts, start=0.0)


def weight_bytes(setting: Setting, formats: dict[Part, Formats]) -> Amount:
    """Bytes of the weights of the rank's share."""
    parts = [each.parameters * BYTES[formats[each.part].weight] / shards(setting, each) for each in held(setting)]
    return sum(parts, start=0.0)


def _adam_bytes(formats: Formats) -> int:
    """Bytes that Adam reads and writes in host memory for a parameter: gradient, state twice, the new weight."""
    return BYTES[formats.gradient] + 2 * formats.state_bytes + BYTES[formats.weight]
