"""Gradients over the network and the optimizer: plain data parallel, or sharded (ZeRO 1 and 2, and through the hierarchy)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ....hardware.precisions import BYTES, Precision
from ...frameworks import ElementBytes
from ...model.precision import Formats, Part
from ...plan.setting import Setting
from ...schedule.operation import Role, Task
from ...schedule.work import Amount, Bookkeeping, Exchange, Sweep
from ...sharding import ShardTransfer, Vector
from ..builder import GRADIENTS, Program
from .held_tensors import HeldTensors, held_tensors
from .optimizer_steps import OptimizerStep, optimizer_steps
from .sharding import Holding, held, held_beside_layers, shards, trained


@dataclass(frozen=True)
class GradientVector(Vector):
    """A vector of the update; ``kind`` is dense or experts."""

    kind: str = "dense"


@dataclass(frozen=True)
class Update:
    """Lowers the update.

    What is sent is what the plan's kind of sharding says (:mod:`athanor.workloads.sharding`): an all-reduce of every gradient, or
    reduce-scatter, update of a shard and all-gather of weights. All have the volume of an all-reduce, 2 (n - 1)/n of the vector
    (ZeRO, Rajbhandari et al. 2020; BaGuaLu's ParO extends it to the hierarchy). Where weights are sharded, they are never whole,
    and there is nothing to gather after the update (:mod:`.weight_gathering`).
    """

    setting: Setting
    formats: Mapping[Part, Formats]

    def synchronise(self, program: Program, holdings: list[Holding], at: Task, aside: bool = False) -> int | None:
        """Reduce the gradients of these holdings, at once or beside what follows; returns the last operation aside.

        ``at`` says of which layer they are, or of both ends; else they are of all that a rank holds.
        """
        number, holdings = None, trained(self.setting, holdings)
        task = at.doing(Role.GRADIENT_SUM, gradient="weight")
        label = "embedding.gradients" if at.part else "gradients"
        if self.setting.plan.sharding.shards_weights:
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
        experts = model.experts / mesh.size(*self.setting.expert_axes) * model.matrices
        counts = {"attention": 2.0, "ffn": float(model.matrices), "expert": experts, "embedding": 1.0}
        return counts.get(part, 0.0)

    def tied(self, program: Program) -> None:
        """Where stages share the embedding, the first and the last tell each other their gradients (Megatron)."""
        setting, mesh = self.setting, self.setting.mesh
        stages = mesh.size("pp")
        model = setting.model
        if not setting.last_part[0] or not model.at_both_ends or not model.trains("embedding"):
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
        """Gradients of what ranks of a model-parallel group have whole, but know in part, are added up.

        Norms under sequence parallelism (Megatron) and on a grid, whose rows have tokens of their own. Gates always: where
        experts stay whole, each rank of tp routes its own tokens; where they are cut it has a part of every answer, and the
        gate's gradient rests on the products of answers and their gradients.
        """
        axes = {
            "norm": "tp" if self.setting.plan.sequence_parallel else "row",
            "gate": "row" if self.setting.mesh.size("row") > 1 else "tp",
        }
        for each in trained(self.setting):
            axis = axes.get(each.part)
            if axis and self.setting.mesh.size(axis) > 1:
                element = self.formats[each.part].gradient
                nbytes = each.parameters * BYTES[element] / shards(self.setting, each)
                exchange = Exchange("all-reduce", "ring", (axis,), nbytes, element)
                task = Task(Role.GRADIENT_SUM_OVER_TOKENS, each.part, gradient="weight")
                program.add(task, exchange, "gradient_sync", f"gradients.{each.part}.sequence.all-reduce")

    def step(self, program: Program) -> None:
        """The framework's own work on what a rank holds, the optimizer on the rank's share, and the way back of weights."""
        self.bookkeep(program)
        tensors = held_tensors(self.setting)
        for each in trained(self.setting):
            for step in self.optimizer(program, tensors, each):
                program.add(Task(Role.OPTIMIZER, each.part), step.work, "optimizer", step.label)
        self.scale(program)
        self.gather(program)

    def scale(self, program: Program) -> None:
        """What the framework passes over around the update: of what the rank updates, and of its gradients, all parts at once."""
        framework = self.setting.framework
        if framework is None:
            return
        amounts: dict[tuple[str, ElementBytes], Amount] = {}
        for each in trained(self.setting):
            formats = self.formats[each.part]
            mine = each.parameters / shards(self.setting, each)
            for name, traffic, amount in (
                ("scaling", framework.around_update(formats), mine),
                ("zeros", framework.clears(formats), each.parameters),
            ):
                amounts[name, traffic] = amounts.get((name, traffic), 0.0) + amount
        for (name, traffic), amount in amounts.items():
            if any(traffic):
                sweep = Sweep(amount, traffic.read, traffic.written, 0.0, "fp32", streams=True)
                program.add(Task(Role.UPDATE_SCALING), sweep, "optimizer", f"update.{name}")

    def bookkeep(self, program: Program) -> None:
        """The framework's own work on what a rank holds."""
        total: Amount = sum((each.parameters for each in trained(self.setting)), start=0.0)
        program.add(Task(Role.BOOKKEEPING), Bookkeeping(total), "other", "update.bookkeeping")

    def gather(self, program: Program) -> None:
        """All-gather updated weights of shards; none where nothing is sharded, or weights always are.

        With ``--overlap all`` those of the layers come beside the first forward pass (:class:`.weights.Gathered`).
        """
        if not self.setting.plan.sharding.gathers_updates:
            return
        late = self.setting.plan.weights_overlap
        for name, exchange in self.gathers(program, held_beside_layers(self.setting) if late else held(self.setting)):
            program.add(Task(Role.WEIGHT_GATHER), exchange, "gradient_sync", f"update.{name}")

    def gathers(self, program: Program, holdings: list[Holding]) -> Iterator[tuple[str, Exchange]]:
        """(name, exchange) of what makes sharded weights whole."""
        for each in self.vectors(trained(self.setting, holdings), "weight"):
            if self.setting.mesh.size(*each.shards) > 1:
                whole = ShardTransfer("all-gather", "all-gather", each.shards, each.nbytes, each.element)
                yield f"{each.kind}.{each.element}.all-gather", self.exchange(program, whole)

    def vectors(self, holdings: list[Holding], what: str) -> Iterator[GradientVector]:
        """A flat vector for each set of replicas and each format; without replicas there is none."""
        found: dict[tuple[tuple[str, ...], Precision], GradientVector] = {}
        for each in holdings:
            element: Precision = getattr(self.formats[each.part], what)
            if self.setting.mesh.size(*each.replicas) == 1:
                continue
            sharded = each.part == "expert" and not {*self.setting.expert_axes}.isdisjoint(self.setting.mesh.axes)
            kind = "experts" if sharded else "dense"
            key = (each.replicas, element)
            before = found[key].nbytes if key in found else 0.0
            nbytes = before + each.parameters * BYTES[element]
            found[key] = GradientVector(nbytes, element, each.replicas, each.shards, kind)
        yield from found.values()

    def optimizer(
        self, program: Program, tensors: HeldTensors, holding: Holding, share: float = 1.0
    ) -> Iterator[OptimizerStep]:
        """The operations of the optimizer on a ``share`` of the rank's part of a holding."""
        return optimizer_steps(tensors, holding, self.formats[holding.part], partial(self.exchange, program), share)

    def _reductions(self, program: Program, vector: GradientVector) -> Iterator[tuple[str, Exchange]]:
        """(name, exchange) of what brings a gradient to where it is applied."""
        for each in self.setting.plan.sharding.reduction(vector, self.setting.mesh):
            yield each.label, self.exchange(program, each)

    def exchange(self, program: Program, transfer: ShardTransfer) -> Exchange:
        """By rings, unless the kind of sharding says otherwise; over all ranks of a mesh, in two levels."""
        axes = transfer.axes
        two_levels = set(axes) == set(self.setting.mesh.axes) and (
            self.setting.plan.sharding.reduces_in_two_levels or program.layout.two_level(axes) is not None
        )
        algorithm = transfer.algorithm or ("two-level" if two_levels else "ring")
        nbytes = transfer.nbytes if isinstance(transfer.nbytes, np.ndarray) else float(transfer.nbytes)
        return Exchange(transfer.operation, algorithm, axes, nbytes, transfer.element)
