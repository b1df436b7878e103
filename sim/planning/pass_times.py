"""Seconds of the passes through single layers and both ends of a model, known once for each shape of a rank's work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ...workloads.loads.loads import Load, LoadModel
from ...workloads.lowering.builder import Program
from ...workloads.lowering.layer.passes import Passes
from ...workloads.mesh.placement import Layout
from ...workloads.model.model import Layer
from ...workloads.plan.setting import Setting
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.operation import RING, Operation
from ...workloads.schedule.work import Exchange
from .collective_times import Wires
from .pipeline_times import Lane

Key = tuple[object, ...]


@dataclass(frozen=True)
class Work:
    """Operations of one kind of pass: seconds that ranks compute, and exchanges with how often each comes.

    ``beside`` are (exchange, seconds of the kernel that runs beside it, how often): the longer of the two counts.
    """

    computing: float
    exchanges: tuple[tuple[Exchange, int], ...]
    beside: tuple[tuple[tuple[Exchange, float], int], ...] = ()

    @classmethod
    def of(cls, operations: Iterable[Operation], costs: Costs) -> Work:
        """What operations come to, one after another; of ranks that differ, the slowest counts in each."""
        computing, exchanges, beside = 0.0, Counter[Exchange](), Counter[tuple[Exchange, float]]()
        moving: Exchange | None = None  # what goes around beside the next kernel
        for each in operations:
            if isinstance(each.work, Exchange):
                if each.stream == RING:
                    moving = each.work
                else:
                    exchanges[as_even(each.work)] += 1
                continue
            seconds = float(np.max(costs.of(each.work).seconds))
            if moving is None:
                computing += seconds
            else:
                beside[moving, seconds] += 1
                moving = None
        return cls(computing, tuple(exchanges.items()), tuple(beside.items()))

    def seconds(self, wires: Wires) -> float:
        """Seconds on the links of a layout."""
        alone = self.computing + sum(count * wires.seconds(each) for each, count in self.exchanges)
        return alone + sum(count * max(kernel, wires.seconds(each)) for (each, kernel), count in self.beside)


def as_even(exchange: Exchange) -> Exchange:
    """The exchange if all ranks had as much to send as the fullest one."""
    nbytes = (
        exchange.nbytes if exchange.received is None else np.maximum(np.max(exchange.nbytes), np.max(exchange.received))
    )
    return replace(exchange, nbytes=float(np.max(nbytes)), received=None, pairs=None)


@dataclass(frozen=True)
class Through:
    """Forward pass, gradients of inputs and gradients of weights of a part of the model."""

    parts: tuple[Work, Work, Work]

    def lane(self, wires: Wires) -> Lane:
        """Their seconds."""
        return Lane(*(part.seconds(wires) for part in self.parts))


@dataclass(frozen=True)
class WholeRank:
    """Seconds of the passes of a setting: of a layer of each kind, of what comes before the first and after the last."""

    layers: dict[Layer, Lane]
    first: Lane
    last: Lane


@dataclass
class PassTimes:
    """Passes by the shape of a rank's work: settings that differ in other things share them.

    A layer of each kind is lowered as for the simulator, and its operations are added up: without overlap they run one after
    another.
    """

    costs: Costs
    _lowered: dict[Key, tuple[dict[Layer, Through], Through, Through]] = field(default_factory=dict)
    _timed: dict[Key, WholeRank] = field(default_factory=dict)
    _loads: dict[Key, list[Load]] = field(default_factory=dict)

    def of(self, setting: Setting, wires: Wires) -> WholeRank:
        """The passes of a setting on the links of its layout."""
        key = shape(setting)
        axes = ("tp", "row", "col", "cp", "ep")
        here = (key, *(wires.shape((axis,)) for axis in axes), wires.shape(("ep", "tp")))
        if here not in self._timed:
            # Algorithms in two levels depend on the layout, and only exchanges of tokens use them.
            known = (key, here if setting.plan.all_to_all == "two-level" else None)
            if known not in self._lowered:
                self._lowered[known] = self._lower(setting, wires.layout)
            layers, first, last = self._lowered[known]
            self._timed[here] = WholeRank(
                {kind: each.lane(wires) for kind, each in layers.items()}, first.lane(wires), last.lane(wires)
            )
        return self._timed[here]

    def loads(self, setting: Setting) -> list[Load]:
        """Loads of the layers with experts as all ranks would have them, were they all as full as the fullest."""
        if not setting.model.experts:
            return []
        key = shape(setting)
        if key not in self._loads:
            even = dict[Layer, Load]()
            for kind in dict.fromkeys(kind for kind in setting.model.stack if kind.moe):
                at = setting.model.stack.index(kind)
                load = LoadModel(setting, decoder=not kind.encoder).sample(at, 0, 0)
                sent, received = float(np.max(load.sent)), float(np.max(load.received))
                even[kind] = replace(load, sent=sent, received=received)
            self._loads[key] = [even[kind] for kind in setting.model.stack if kind.moe]
        return self._loads[key]

    def _lower(self, setting: Setting, layout: Layout) -> tuple[dict[Layer, Through], Through, Through]:
        passes, stack = Passes.of(setting, setting.plan.precisions.at(0)), setting.model.stack
        loads = dict(zip((at for at, kind in enumerate(stack) if kind.moe), self.loads(setting), strict=True))
        layers = {}
        for kind in dict.fromkeys(stack):
            at = len(stack) - 1 - stack[::-1].index(kind)
            flows = {at: passes.experts[kind.encoder].flow(loads[at])} if kind.moe else {}
            forward, backward = Program(layout), Program(layout)
            passes.forward(forward, [at], flows, first=False, last=False)
            passes.backward(backward, [at], flows, first=False, last=False)
            layers[kind] = self._through(forward, backward)
        ends = []
        for first in (True, False):
            forward, backward = Program(layout), Program(layout)
            passes.forward(forward, [], {}, first=first, last=not first)
            passes.backward(backward, [], {}, first=first, last=not first)
            ends.append(self._through(forward, backward))
        return layers, ends[0], ends[1]

    def _through(self, forward: Program, backward: Program) -> Through:
        back = backward.schedule().operations
        inputs, weights = ([each for each in back if each.task.of_weights == is_w] for is_w in (False, True))
        groups = (forward.schedule().operations, inputs, weights)
        return Through(tuple(Work.of(group, self.costs) for group in groups))  # type: ignore[arg-type]


def dealt(setting: Setting) -> tuple[int, str]:
    """What decides which layers a stage has: its chunks, but of equal layers it has as many, whatever its chunks."""
    plan = setting.plan
    return plan.chunks if len(set(setting.model.stack)) > 1 else 1, plan.stage_layers


def shape(setting: Setting) -> Key:
    """What the passes of a rank depend on: which part of each layer and of how many tokens it works on, and how."""
    plan, mesh = setting.plan, setting.mesh
    return (
        mesh.size("tp"),
        mesh.size("col"),
        mesh.size("cp"),
        mesh.size("ep"),
        setting.batch.micro_tokens,
        setting.batch.seq_len,
        plan.sequence_parallel,
        plan.attention,
        plan.recompute,
        plan.expert_tensor,
        plan.precision,
        plan.prototypes,
        plan.top_k,
        plan.all_to_all,
        plan.balancer,
        plan.router,
    )
