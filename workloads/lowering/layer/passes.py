"""The passes of a micro-batch through layers: forward, backward with what is worked out again, and what acts around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ....hardware.frozen_dict import FrozenDict
from ...frameworks import ElementBytes
from ...loads.loads import LoadModel
from ...mesh.axes import TENSOR
from ...model.layers import Layer, Sight
from ...model.precision import Formats, Part
from ...plan.setting import Setting
from ...schedule.operation import Gradient, Task
from ..builder import Mark, Program
from ..tensor_parallel.megatron_1d import Megatron1D
from ..tensor_parallel.none import NoTensorParallel
from ..tensor_parallel.summa_2d import Summa2D
from .attention import AttentionLayer
from .ends import Ends
from .ffn import FeedForward
from .further import FurtherToken
from .layer_hooks import LayerHook
from .moe import Flow, MixtureOfExperts
from .node_dispatch import node_share
from .rank_share import Local
from .recurrence import RecurrentLayer

BESIDE_ATTENTION = 6
"""Kernels beside those of attention's operations: positions of queries and keys, and copies that split and join heads."""


@dataclass(frozen=True)
class Passes:
    """Lowers passes through any of a model's layers."""

    setting: Setting
    stacks: Mapping[bool, Local]  # of the encoder (True) and of all else
    tensor: NoTensorParallel
    ends: Ends
    experts: Mapping[bool, MixtureOfExperts]  # the same, where the model has any
    around: tuple[LayerHook, ...] = ()
    paced: bool = False  # a host starts kernels one by one

    @classmethod
    def of(cls, setting: Setting, formats: Mapping[Part, Formats], around: Iterable[LayerHook] = ()) -> Passes:
        """The passes of a setting in these formats."""
        model, mesh = setting.model, setting.mesh
        here = Local.of(setting, formats, decoder=True)
        encoder = Local.of(setting, formats) if model.encoder_layers else here
        tensor = (
            Summa2D(mesh.size("row"))
            if mesh.size("row") > 1
            else Megatron1D()
            if mesh.size("tp") > 1
            else NoTensorParallel()
        )
        stacks = {True: encoder, False: here}
        loads = {which: LoadModel(setting, decoder=not which) for which in stacks if model.experts}
        routed = _routed(setting, tensor) if model.experts else tensor
        experts = {
            which: MixtureOfExperts(
                local,
                tensor,
                routed,
                setting.expert_cut,
                loads[which],
                setting.plan.all_to_all,
                1.0 if setting.plan.dispatch == "copies" else node_share(setting, loads[which].axes),
                setting.machine.core_group.tiles is not None,
            )
            for which, local in stacks.items()
            if model.experts
        }
        framework = None if setting.plan.loss == "fused" else setting.framework
        loss = (framework.loss, framework.loss_backward) if framework else (ElementBytes(0, 0), ElementBytes(0, 0))
        ends, paced = Ends(encoder, here, tensor, loss), setting.paced
        return cls(setting, FrozenDict(stacks), tensor, ends, FrozenDict(experts), tuple(around), paced)

    def forward(
        self, program: Program, layers: Sequence[int], flows: dict[int, Flow], first: bool = True, last: bool = True
    ) -> None:
        """Layers in order; ``first`` and ``last``: whether embedding and output are with them. ``flows`` are of MoE layers."""
        program.phase = "forward"
        for each in self.around:
            each.begin(program, again=False)
        if first:
            self.ends.embed(program)
        for layer in layers:
            if layer == self.setting.model.encoder_layers and layer:
                self.ends.turn(program)
            for each in self.around:
                each.before(program, layer, again=False)
            since = program.mark()
            self.layer(program, layer, flows.get(layer))
            self.started(program, since, layer)
            for each in self.around:
                each.after_forward(program, layer)
        if last:
            self.ends.output(program)

    def backward(
        self, program: Program, layers: Sequence[int], flows: dict[int, Flow], first: bool = True, last: bool = True
    ) -> None:
        """The way back."""
        program.phase = "backward"
        for each in self.around:
            each.begin(program, again=True)
        if last:
            self.ends.output_backward(program)
        for layer in reversed(layers):
            for each in self.around:
                each.before(program, layer, again=True)
            since = program.mark()
            self.layer_backward(program, layer, flows.get(layer))
            self.started(program, since, layer, gradient="input")
            for each in self.around:
                each.after_backward(program, layer)
            if layer == self.setting.model.encoder_layers and layer:
                self.ends.turn_backward(program)
        if first:
            self.ends.embed_backward(program)

    def started(self, program: Program, since: Mark, layer: int, gradient: Gradient | None = None) -> None:
        """What follows waits for the host, where it starts the kernels of a pass through a layer."""
        if self.paced:
            program.launched(since, Task(layer=layer, gradient=gradient), self.beside(layer))

    def beside(self, layer: int) -> float:
        """Kernels of a pass through a layer that no operation stands for."""
        return float(BESIDE_ATTENTION * len(self.attentions(self.setting.model.stack[layer])))

    def layer(self, program: Program, layer: int, flow: Flow | None, balance: bool = True) -> None:
        """The forward pass through one layer; without ``balance`` the routing is known already, as is all that is kept."""
        kind = self.setting.stack[layer]
        if kind.ahead:
            self.further.enter(program, layer, again=not balance)
        for mixer in self.mixers(kind):
            mixer.forward(program, layer)
        self.second_half(program, layer, flow, balance)
        if kind.ahead and balance:
            self.further.leave(program, layer)

    def second_half(self, program: Program, layer: int, flow: Flow | None, balance: bool) -> None:
        """The forward pass through the FFN or the experts of a layer."""
        if flow is not None:
            self.experts[self.setting.stack[layer].encoder].forward(program, layer, flow, balance)
        elif self.setting.model.ffn_hidden:
            self.feed_forward(layer).forward(program, layer)

    def layer_backward(self, program: Program, layer: int, flow: Flow | None) -> None:
        """The backward pass through one layer, after what was not kept of its forward pass."""
        kind = self.setting.stack[layer]
        if kind.ahead:
            self.further.leave_backward(program, layer)
        self._again(program, layer, flow)
        if flow is not None:
            self.experts[kind.encoder].backward(program, layer, flow)
        elif self.setting.model.ffn_hidden:
            self.feed_forward(layer).backward(program, layer)
        for mixer in reversed(self.mixers(kind)):
            mixer.backward(program, layer)
        if kind.ahead:
            self.further.enter_backward(program, layer)

    def _again(self, program: Program, layer: int, flow: Flow | None) -> None:
        """What was not kept."""
        if self.setting.stack[layer].kept:
            return
        program.recomputed = True
        self.setting.plan.recomputation.run_again(_Repeated(self, program, layer, flow))
        program.recomputed = False

    def feed_forward(self, layer: int) -> FeedForward:
        """The dense FFN of a layer."""
        return FeedForward(self.stacks[self.setting.stack[layer].encoder], self.tensor)

    @property
    def further(self) -> FurtherToken:
        """What is around a layer that predicts a further token."""
        return FurtherToken(self.stacks[False], self.tensor, self.ends)

    def mixers(self, layer: Layer) -> list[AttentionLayer | RecurrentLayer]:
        """What mixes tokens: attention or a recurrent part, then attention to the encoder."""
        recurrent, found = self.setting.model.recurrent_of(layer), self.attentions(layer)
        return [RecurrentLayer(self.stacks[layer.encoder], self.tensor, recurrent), *found] if recurrent else [*found]

    def attentions(self, layer: Layer) -> list[AttentionLayer]:
        """Self-attention, where the layer has it, and attention to the encoder."""
        local, sight = self.stacks[layer.encoder], self.setting.sight(layer)
        own = AttentionLayer(local, self.tensor, sight=sight)
        cross = AttentionLayer(local, self.tensor, "cross attention", self.stacks[True], Sight(causal=False))
        return [own] * layer.attends + [cross] * layer.cross


def _routed(setting: Setting, tensor: NoTensorParallel) -> NoTensorParallel:
    """The tensor parallelism of what is routed: as of all else, in groups of tp, or none where experts are whole."""
    mesh, cut = setting.mesh, setting.expert_cut
    width, each = mesh.size(*TENSOR), mesh.size(*cut)
    return tensor if each == width else Megatron1D(cut, each / width) if each > 1 else NoTensorParallel()


@dataclass(frozen=True)
class _Repeated:
    """A layer as recomputation runs it again (:class:`~athanor.workloads.recomputation.RepeatedLayer`)."""

    passes: Passes
    program: Program
    number: int
    flow: Flow | None

    def whole(self) -> None:
        """All of it; tokens go to the experts that they went to."""
        self.passes.layer(self.program, self.number, self.flow, balance=False)

    def attention_core(self) -> None:
        """The core of attention, but where the kernel works it out again by itself."""
        if self.passes.setting.plan.kernel.keeps_scores:
            for attention in self._attentions:
                attention.core(self.program, self.number)

    def feed_forward(self) -> None:
        """The FFN with its norm, or the experts."""
        self.passes.second_half(self.program, self.number, self.flow, balance=False)

    def between_products(self) -> None:
        """What is between the products that are kept, and every second one."""
        for attention in self._attentions:
            attention.products_again(self.program, self.number)
        self.passes.feed_forward(self.number).products_again(self.program, self.number)

    @property
    def moe(self) -> bool:
        """Whether it has experts."""
        return self.flow is not None

    def norms(self, second: bool) -> None:
        """Of attention, and of the ``second`` half."""
        kind = self.passes.setting.stack[self.number]
        if kind.ahead:
            self.passes.further.norm_again(self.program, self.number)
        for mixer in self.passes.mixers(kind):
            mixer.norm_again(self.program, self.number)
        if second and (self.moe or self.passes.setting.model.ffn_hidden):
            self.passes.feed_forward(self.number).norm_again(self.program, self.number, "moe" if self.moe else "ffn")

    def latent_products(self) -> None:
        """From narrow queries, keys and values to those of all heads."""
        for attention in self._attentions:
            attention.latent_products_again(self.program, self.number)

    def expert_activation(self) -> None:
        """What experts have between their products."""
        if self.flow is not None:
            self._experts.activation_again(self.program, self.number, self.flow)

    def shared_experts(self) -> None:
        """Those that see every token."""
        if self.flow is not None:
            self._experts.shared_again(self.program, self.number)

    @property
    def _experts(self) -> MixtureOfExperts:
        return self.passes.experts[self.passes.setting.stack[self.number].encoder]

    @property
    def _attentions(self) -> list[AttentionLayer]:
        return self.passes.attentions(self.passes.setting.stack[self.number])
