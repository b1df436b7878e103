"""Gradients over the network and the optimizer: plain data parallel, or sharded (ZeRO 1 and 2, and through the hierarchy)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....hardware.precisions import BYTES, Precision
from ...model.precision import Formats, Part
from ...plan.setting import Setting
from ...schedule.operation import Role, Task
from ...schedule.work import Amount, Bookkeeping, Exchange, Sweep
from ..builder import GRADIENTS, Program
from .sharding import Holding, held, held_beside_layers, shards

ADAM_FLOPS = 12
"""FLOPs of Adam for one parameter; it is bound by memory."""


QUANTISED_GRADIENT = 0.5
"""Bytes of a quantised gradient; scales of its blocks are not counted."""


@dataclass(frozen=True)
class GradientVector:
    """What is reduced or gathered as one: parameters of one format that have the same replicas."""

    kind: str  # dense or experts
    nbytes: Amount
    replicas: tuple[str, ...]
    shards: tuple[str, ...]
    element: Precision


@dataclass(frozen=True)
class Update:
    """Lowers the update.

    ``zero`` 0: all-reduce every gradient, and every rank updates all that it holds. 1, 2 and ``hierarchical``:
    reduce-scatter, update of a shard, all-gather of weights; 2 reduces after every micro-batch, since no rank keeps all
    gradients. All have the volume of an all-reduce, 2 (n - 1)/n of the vector (ZeRO, Rajbhandari et al. 2020; BaGuaLu's ParO
    extends it to the hierarchy: experts inside their ``dp`` group by a ring, dense parameters over all ranks in two levels).
    Where shards span fsdp only, what is left of a gradient is all-reduced over dp (PyTorch's HSDP; MiCS, Zhang et al. 2022).
    With 3 weights are never whole, and there is nothing to gather after the update (:mod:`.zero3`).
    """

    setting: Setting
    formats: dict[Part, Formats]

    def synchronise(self, program: Program, holdings: list[Holding], at: Task, aside: bool = False) -> int | None:
        """Reduce the gradients of these holdings, at once or beside what follows; returns the last operation aside.

        ``at`` says of which layer they are, or of both ends; else they are of all that a rank holds.
        """
        number = None
        task = at.doing(Role.GRADIENT_SUM, gradient="weight")
        label = "embedding.gradients" if at.part else "gradients"
        if self.setting.plan.shards == 3:
            self.shards(program, holdings, at.doing(Role.SHARD_BOOKKEEPING, gradient="weight"), f"{label}.shards")
        for each in self.vectors(holdings, "gradient"):
            for text, exchange in self._reductions(program, each):
                full = f"{label}.{each.kind}.{each.element}.{text}"
                if aside:
                    number = program.aside(task, exchange, "gradient_sync", GRADIENTS, label=full)
                else:
                    program.add(task, exchange, "gradient_sync", full)
        return number

    def shards(self, program: Program, holdings: list[Holding], task: Task, label: str) -> None:
        """The framework's work on every rank's part of every tensor, where the machine's library is known for it."""
        if not self.setting.machine.calibration.shard_overhead:
            return
        count = sum(self._tensors(each.part) * self.setting.mesh.size(*each.shards) for each in holdings)
        program.add(task, Bookkeeping(0.0, count), "gradient_sync", label)

    def _tensors(self, part: Part) -> float:
        """Large tensors of a part of a layer, or of an end; norms and the like are small and stay whole (DeepSpeed)."""
        model, mesh = self.setting.model, self.setting.mesh
        experts = model.experts / mesh.size("ep") * model.matrices
        counts = {"attention": 2.0, "ffn": float(model.matrices), "expert": experts, "embedding": 1.0}
        return counts.get(part, 0.0)

    def tied(self, program: Program) -> None:
        """Where stages share the embedding, the first and the last tell each other their gradients (Megatron)."""
        setting, mesh = self.setting, self.setting.mesh
        stages = mesh.size("pp")
        if stages == 1 or not setting.model.tied:
            return
        element = self.formats["embedding"].gradient
        words = setting.model.vocabulary * setting.model.hidden / mesh.size("tp", "row", "col") * BYTES[element]
        for role, way, algorithm, sender in (
            (Role.TIED_GRADIENT_TO_FIRST, "first", "next", stages - 1),
            (Role.TIED_GRADIENT_TO_LAST, "last", "previous", 0),
        ):
            nbytes = mesh.along("pp", [words if stage == sender else 0.0 for stage in range(stages)])
            exchange = Exchange("shift", algorithm, ("pp",), nbytes, element)
            task = Task(role, "embedding", gradient="weight")
            program.add(task, exchange, "gradient_sync", f"embedding.tied.to_{way}")

    def norms(self, program: Program) -> None:
        """Gradients of what ranks of a model-parallel group have whole, but of other tokens, are added up.

        Norms under sequence parallelism (Megatron) and on a grid, whose rows have tokens of their own; gates where experts stay
        whole, so that each rank of tp routes its own.
        """
        plan = self.setting.plan
        axes = {
            "norm": "tp" if plan.sequence_parallel else "row",
            "gate": "tp" if plan.expert_tensor == "whole" else "row",
        }
        for each in held(self.setting):
            axis = axes.get(each.part)
            if axis and self.setting.mesh.size(axis) > 1:
                element = self.formats[each.part].gradient
                nbytes = each.parameters * BYTES[element] / shards(self.setting, each)
                exchange = Exchange("all-reduce", "ring", (axis,), nbytes, element)
                task = Task(Role.GRADIENT_SUM_OVER_TOKENS, each.part, gradient="weight")
                program.add(task, exchange, "gradient_sync", f"gradients.{each.part}.sequence.all-reduce")

    def step(self, program: Program) -> None:
        """The framework's own work on what a rank holds, Adam on the rank's share, and the way back of updated weights."""
        self.bookkeep(program)
        for each in held(self.setting):
            program.add(Task(Role.OPTIMIZER, each.part), self.adam(each), "optimizer", f"update.adam.{each.part}")
        self.gather(program)

    def bookkeep(self, program: Program) -> None:
        """The framework's own work on what a rank holds."""
        total: Amount = sum((each.parameters for each in held(self.setting)), start=0.0)
        program.add(Task(Role.BOOKKEEPING), Bookkeeping(total), "other", "update.bookkeeping")

    def gather(self, program: Program) -> None:
        """All-gather updated weights of shards; none where nothing is sharded, or weights always are.

        With ``--overlap all`` those of the layers come beside the first forward pass (:class:`.weights.Gathered`).
        """
        if self.setting.plan.shards not in (1, 2):
            return
        late = self.setting.plan.weights_overlap
        for name, exchange in self.gathers(program, held_beside_layers(self.setting) if late else held(self.setting)):
            program.add(Task(Role.WEIGHT_GATHER), exchange, "gradient_sync", f"update.{name}")

    def gathers(self, program: Program, holdings: list[Holding]) -> Iterator[tuple[str, Exchange]]:
        """(name, exchange) of what makes sharded weights whole."""
        for each in self.vectors(holdings, "weight"):
            if self.setting.mesh.size(*each.shards) > 1:
                exchange = self._exchange(program, "all-gather", each, each.shards, each.nbytes)
                yield f"{each.kind}.{each.element}.all-gather", exchange

    def vectors(self, holdings: list[Holding], what: str) -> Iterator[GradientVector]:
        """A flat vector for each set of replicas and each format; without replicas there is none."""
        found: dict[tuple[tuple[str, ...], Precision], GradientVector] = {}
        for each in holdings:
            element: Precision = getattr(self.formats[each.part], what)
            if self.setting.mesh.size(*each.replicas) == 1:
                continue
            sharded = each.part == "expert" and "ep" in self.setting.mesh.axes
            kind = "experts" if sharded else "dense"
            key = (each.replicas, element)
            before = found[key].nbytes if key in found else 0.0
            nbytes = before + each.parameters * BYTES[element]
            found[key] = GradientVector(kind, nbytes, each.replicas, each.shards, element)
        yield from found.values()

    def adam(self, holding: Holding) -> Sweep:
        """One sweep over gradients, state and weights of the rank's part; without a master copy the weights are read too."""
        formats = self.formats[holding.part]
        weight = BYTES[formats.weight]
        read = BYTES[formats.gradient] + formats.state_bytes + (0 if formats.master else weight)
        count = holding.parameters / shards(self.setting, holding)
        return Sweep(count, float(read), float(formats.state_bytes + weight), ADAM_FLOPS, "fp32")

    def _reductions(self, program: Program, vector: GradientVector) -> Iterator[tuple[str, Exchange]]:
        """(name, exchange) of what brings a gradient to where it is applied."""
        if self.setting.plan.zero == "++":
            yield from self._quantised(vector)
            return
        if not self.setting.plan.shards:
            yield "all-reduce", self._exchange(program, "all-reduce", vector, vector.replicas, vector.nbytes)
            return
        width = self.setting.mesh.size(*vector.shards)
        if width > 1:
            yield "reduce-scatter", self._exchange(program, "reduce-scatter", vector, vector.shards, vector.nbytes)
        rest = tuple(axis for axis in vector.replicas if axis not in vector.shards)
        if self.setting.mesh.size(*rest) > 1:
            yield "all-reduce", self._exchange(program, "all-reduce", vector, rest, vector.nbytes / width)

    def _quantised(self, vector: GradientVector) -> Iterator[tuple[str, Exchange]]:
        """4-bit gradients by an all-to-all inside, then one across (ZeRO++'s qgZ); each rank adds up what it gets."""
        nbytes = vector.nbytes / BYTES[vector.element] * QUANTISED_GRADIENT
        inner = tuple(axis for axis in vector.replicas if axis == "fsdp")
        outer = tuple(axis for axis in vector.replicas if axis != "fsdp")
        if self.setting.mesh.size(*inner) > 1:
            yield "all-to-all.inner", Exchange("all-to-all", "linear", inner, nbytes, "int4")
        if self.setting.mesh.size(*outer) > 1:
            width = self.setting.mesh.size(*inner)
            yield "all-to-all.outer", Exchange("all-to-all", "linear", outer, nbytes / width, "int4")

    def _exchange(
        self, program: Program, operation: str, vector: GradientVector, axes: tuple[str, ...], nbytes: Amount
    ) -> Exchange:
        """By rings; where dense parameters lie on all ranks of a mesh of dp and ep, in two levels."""
        whole = set(axes) == set(self.setting.mesh.axes)
        two = whole and (self.setting.plan.zero == "hierarchical" or program.layout.two_level(axes) is not None)
        amount = nbytes if isinstance(nbytes, np.ndarray) else float(nbytes)
        return Exchange(operation, "two-level" if two else "ring", axes, amount, vector.element)
