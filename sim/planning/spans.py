"""Layers as spans: the lowering's own steps, blocks and hooks around passes whose operations are known by their seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ...workloads.lowering.builder import Mark, Program
from ...workloads.lowering.layer.ends import OUTPUT, Ends
from ...workloads.lowering.layer.moe import Flow
from ...workloads.lowering.layer.passes import Passes
from ...workloads.lowering.step import TrainingStep
from ...workloads.mesh.placement import Layout
from ...workloads.model.layers import Layer
from ...workloads.plan.setting import Setting
from ...workloads.schedule.operation import Gradient, Task

Pass = Literal["forward", "backward", "inputs", "weights"]
"""Forward, backward, and the halves of a backward pass that is split."""

Place = Literal["layer", "embedding", "turn", "output", "micro-batches"]


@dataclass(frozen=True)
class Span:
    """All operations of a pass through a layer of a kind, or through what stands before, between or after layers."""

    place: Place
    which: Pass = "forward"
    layer: Layer | None = None

    @property
    def flops(self) -> float:
        """None that are counted here."""
        return 0.0


MICRO_BATCHES = Span("micro-batches")
"""All micro-batches of a step."""


def add(program: Program, span: Span, gradient: Gradient | None = None) -> None:
    """Append a span; it says itself what it is of, and its task no more than which gradients it makes."""
    work: Any = span
    program.add(Task(gradient=gradient), work, "compute", span.place)


def add_backward(program: Program, place: Place, layer: Layer | None, split: bool) -> None:
    """Append a backward pass, as its two halves where it is split, of which a program may want only one."""
    if not split:
        add(program, Span(place, "backward", layer))
        return
    add(program, Span(place, "inputs", layer), "input")
    add(program, Span(place, "weights", layer), "weight")


@dataclass(frozen=True)
class SpanEnds(Ends):
    """Both ends of a model, and the turn from encoder to decoder, as spans."""

    split: bool = False

    def embed(self, program: Program) -> None:
        """Before the first layer."""
        add(program, Span("embedding"))

    def embed_backward(self, program: Program) -> None:
        """The way back."""
        add_backward(program, "embedding", None, self.split)

    def turn(self, program: Program) -> None:
        """Between encoder and decoder."""
        add(program, Span("turn"))

    def turn_backward(self, program: Program) -> None:
        """The way back."""
        add_backward(program, "turn", None, self.split)

    def output(self, program: Program, at: Task = OUTPUT) -> None:
        """After the last layer."""
        add(program, Span("output"))

    def output_backward(self, program: Program, at: Task = OUTPUT) -> None:
        """The way back."""
        add_backward(program, "output", None, self.split)


@dataclass(frozen=True)
class SpanPasses(Passes):
    """Passes whose layers are spans; what acts around them is lowered as ever."""

    split: bool = False

    def layer(self, program: Program, layer: int, flow: Flow | None, balance: bool = True) -> None:
        """The forward pass through a layer."""
        add(program, Span("layer", "forward", self.setting.stack[layer]))

    def started(self, program: Program, since: Mark, layer: int, gradient: Gradient | None = None) -> None:
        """A span knows itself what the host needs."""

    def layer_backward(self, program: Program, layer: int, flow: Flow | None) -> None:
        """The backward pass, with what is worked out again."""
        add_backward(program, "layer", self.setting.stack[layer], self.split)


class SpanStep(TrainingStep):
    """A training step whose layers and ends are spans: everything else of its schedule is as the engine has it.

    ``layout`` is the setting's own, which many settings share.
    """

    def __init__(self, setting: Setting, layout: Layout) -> None:
        super().__init__(setting, 0)
        self._layout = layout

    @property
    def layout(self) -> Layout:
        """Where every rank lives."""
        return self._layout

    def passes(self, last: bool, layers: tuple[int, ...] | None = None, split: str = "", first: bool = False) -> Passes:
        """The passes of a micro-batch, as :meth:`TrainingStep.passes` has them."""
        plain = super().passes(last, layers, split, first)
        ends = SpanEnds(plain.ends.first, plain.ends.last, plain.ends.tensor, split=bool(split))
        return SpanPasses(
            plain.setting, plain.stacks, plain.tensor, ends, plain.experts, plain.around, split=bool(split)
        )
