"""Seconds of the passes through single layers and both ends of a model, known once for each shape of a rank's work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ...workloads.loads.loads import Load, LoadModel
from ...workloads.lowering.builder import COMMUNICATION, Program
from ...workloads.lowering.layer.adapters import makes
from ...workloads.lowering.layer.passes import Passes
from ...workloads.mesh.axes import CONTEXT, TENSOR
from ...workloads.mesh.placement import Layout
from ...workloads.model.layers import Layer
from ...workloads.pipelines import PartSeconds
from ...workloads.plan.setting import Setting
from ...workloads.schedule.costs import Costs
from ...workloads.schedule.operation import COMPUTE, Operation, Task
from ...workloads.schedule.work import Exchange, kernels
from .collective_times import Wires
from .latest import Latest
from .spans import Pass, Place, Span
from .timeline import SpanTimeline

Key = tuple[object, ...]

AXES_OF_PASSES = (*TENSOR, *CONTEXT, "ep")
"""Axes along which passes through layers exchange."""


@dataclass(frozen=True)
class Work:
    """Operations of a span: seconds that ranks compute, and exchanges with how often each comes, one after another.

    Where some run beside others (``beside``), their timeline is run on the links of each layout. ``host`` are the seconds that
    starting them takes, beside all.
    """

    computing: float
    exchanges: tuple[tuple[Exchange, int], ...]
    beside: tuple[Operation, ...] = ()
    host: float = 0.0

    @classmethod
    def of(cls, operations: Sequence[Operation], costs: Costs, others: float | None = None) -> Work:
        """What operations come to; of ranks that differ, the slowest counts in each.

        ``others`` are kernels that a host starts beside theirs, None where it need not start any.
        """
        started = None if others is None or not operations else others + sum(kernels(each.work) for each in operations)
        host = 0.0 if started is None else costs.processor.host_launch(started)
        if not in_turn(operations):
            return cls(0.0, (), tuple(operations), host)
        computing, exchanges = 0.0, Counter[Exchange]()
        for each in operations:
            if isinstance(each.work, Exchange):
                exchanges[as_even(each.work)] += 1
            else:
                computing += costs.slowest(each.work)
        return cls(computing, tuple(exchanges.items()), (), host)

    def seconds(self, wires: Wires, costs: Costs) -> float:
        """Seconds on the links of a layout."""
        if self.beside:
            timeline = SpanTimeline.of(self.beside, lambda each: seconds_of(each, wires, costs))
            return max(self.host, timeline.run({})[0])
        return max(self.host, self.computing + sum(count * wires.seconds(each) for each, count in self.exchanges))


def in_turn(operations: Iterable[Operation]) -> bool:
    """Whether operations run one after another: all that a program adds to its two main streams does."""
    return all(each.stream in (COMPUTE, COMMUNICATION) for each in operations)


def seconds_of(operation: Operation, wires: Wires, costs: Costs) -> float:
    """Seconds of an operation of the rank that takes longest."""
    if isinstance(operation.work, Exchange):
        return wires.seconds(as_even(operation.work))
    return costs.slowest(operation.work)


def as_even(exchange: Exchange) -> Exchange:
    """The exchange if all ranks had as much to send as the fullest one."""
    if isinstance(exchange.nbytes, float) and exchange.received is None and exchange.pairs is None:
        return exchange
    nbytes = (
        exchange.nbytes if exchange.received is None else np.maximum(np.max(exchange.nbytes), np.max(exchange.received))
    )
    return replace(exchange, nbytes=float(np.max(nbytes)), received=None, pairs=None)


@dataclass(frozen=True)
class SpanSeconds:
    """Seconds of all spans of settings that share them; ``number`` stands for them.

    ``blocks`` are those of blocks that have nothing but spans, and until what they pass on is there, as these are found;
    ``bounds`` what steps take at least.
    """

    number: int
    seconds: Mapping[Span, float]
    blocks: dict[Key, tuple[float, float]] = field(default_factory=dict)
    bounds: dict[Key, float] = field(default_factory=dict)

    def passes(self, kinds: Iterable[Layer], ends: tuple[bool, bool], split: bool) -> PartSeconds:
        """The passes of a micro-batch through layers of these kinds, and the ``ends`` of the model that are with them."""
        places: list[tuple[Place, Layer | None, int]] = [("layer", kind, n) for kind, n in Counter(kinds).items()]
        places += [("embedding", None, ends[0]), ("output", None, ends[1])]

        def seconds(way: Pass) -> float:
            return sum(times * self.seconds[Span(at, way, kind)] for at, kind, times in places if times)

        if split:
            return PartSeconds(seconds("forward"), seconds("inputs"), seconds("weights"))
        return PartSeconds(seconds("forward"), seconds("backward"))


@dataclass
class PassTimes:
    """Spans by the shape of a rank's work: settings that differ in other things share them.

    A layer of each kind is lowered as for the simulator, and its operations take what they take there.
    """

    costs: Costs
    _lowered: dict[Key, dict[Span, Work]] = field(default_factory=dict)
    _timed: dict[Key, SpanSeconds] = field(default_factory=dict)
    _loads: dict[Key, list[Load]] = field(default_factory=dict)
    _latest: Latest[SpanSeconds] = field(default_factory=Latest)

    def of(self, setting: Setting, wires: Wires) -> SpanSeconds:
        """The seconds of all spans of a setting on the links of its layout."""
        return self._latest.of(setting, lambda: self._of(setting, wires))

    def _of(self, setting: Setting, wires: Wires) -> SpanSeconds:
        key = setting.rank_work
        here = (key, *(wires.shape((axis,)) for axis in AXES_OF_PASSES), wires.shape(setting.expert_axes))
        if here not in self._timed:
            # Algorithms in two levels depend on the layout, as do tokens that go once to a node: of exchanges of tokens alone.
            known = (key, here if setting.plan.all_to_all == "two-level" or setting.plan.dispatch != "copies" else None)
            if known not in self._lowered:
                self._lowered[known] = self._lower(setting, wires.layout)
            seconds = {span: work.seconds(wires, self.costs) for span, work in self._lowered[known].items()}
            self._timed[here] = SpanSeconds(len(self._timed), seconds)
        return self._timed[here]

    def loads(self, setting: Setting) -> list[Load]:
        """Loads of the layers with experts as all ranks would have them, were they all as full as the fullest."""
        if not setting.model.experts:
            return []
        key = setting.rank_work
        if key not in self._loads:
            even = dict[Layer, Load]()
            for kind in (kind for kind in setting.kinds if kind.moe):
                at = setting.stack.index(kind)
                load = LoadModel(setting, decoder=not kind.encoder, carried_only=True).sample(at, 0, 0)
                even[kind] = load.of(np.max)
            self._loads[key] = [even[kind] for kind in setting.stack if kind.moe]
        return self._loads[key]

    def _lower(self, setting: Setting, layout: Layout) -> dict[Span, Work]:
        own, stack = Passes.of(setting, setting.plan.precisions.at(0)), setting.stack
        passes = replace(own, paced=False)  # a span's work has the host's part itself
        loads = dict(zip((at for at, kind in enumerate(stack) if kind.moe), self.loads(setting), strict=True))
        overlap, weights = setting.plan.tensor_overlap, setting.plan.tensor_async
        found, trained = dict[Span, Work](), makes(setting.model)

        def lower(
            place: Place,
            forward: Callable[[Program], None],
            backward: Callable[[Program], None],
            kind: Layer | None = None,
        ) -> None:
            ahead = Program(layout, beside_products=overlap)
            back = Program(layout, beside_products=overlap, beside_weights=weights, makes=trained)
            ahead.phase, back.phase = "forward", "backward"
            forward(ahead)
            backward(back)
            whole = back.schedule().operations
            halves = [[each for each in whole if each.task.of_weights == second] for second in (False, True)]
            if not in_turn(whole):  # what runs beside what is another matter where only a half is there
                for second in (False, True):
                    half = Program(layout, partial(_of_half, second), overlap, makes=trained)
                    backward(half)
                    halves[second] = list(half.schedule().operations)
            names: tuple[Pass, ...] = ("forward", "backward", "inputs", "weights")
            for name, operations in zip(names, (ahead.schedule().operations, whole, *halves), strict=True):
                others = passes.beside(stack.index(kind)) if kind and own.paced else None
                found[Span(place, name, kind)] = Work.of(operations, self.costs, others)

        for kind in setting.kinds:
            at = len(stack) - 1 - stack[::-1].index(kind)
            flows = {at: passes.experts[kind.encoder].flow(loads[at])} if kind.moe else {}
            ahead, back = (
                partial(way, layers=[at], flows=flows, first=False, last=False)
                for way in (passes.forward, passes.backward)
            )
            lower("layer", ahead, back, kind)
        lower("embedding", passes.ends.embed, passes.ends.embed_backward)
        lower("output", passes.ends.output, passes.ends.output_backward)
        if setting.model.encoder_layers:
            lower("turn", passes.ends.turn, passes.ends.turn_backward)
        return found


def _of_half(second: bool, task: Task) -> bool:
    return task.of_weights == second
