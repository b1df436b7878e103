"""A setting: machine, model and plan, checked against each other, from which schedules and memory follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...hardware.errors import InputError
from ...hardware.machine import Machine, load_machine
from ...hardware.node import Processor
from ..frameworks import FRAMEWORKS, TrainingFramework
from ..mesh.axes import CONTEXT
from ..mesh.mesh import Mesh
from ..mesh.placement import Layout, place, resolve_ranks_per_node
from ..model.layers import Layer, Sight, one_each
from ..model.model import Model, load_model
from ..pipelines import find_pipeline, part_of, place_of
from ..pipelines.stage_layers import layers_by_part
from ..routing.trace import Trace
from .batch import Batch
from .checks import Given, check
from .expert_axes import divided, expert_axes, expert_cut
from .form import layout_form
from .kept import KeptWork
from .plan import Plan

WITHOUT_GAPS = "megatron"
"""A placement that holds every mesh for which the machine has room: ranks fill its nodes one after another."""

WHATEVER_THE_BATCH = (
    "expert_axes",
    "expert_cut",
    "holdings",
    "folded",
    "dealt",
    "parts",
    "stack",
    "kinds",
    "processor",
)
"""What follows from the choices of a setting alone."""

MOST_FLAT = 256
"""Layers of all micro-batches together up to which a step is written out in full."""


@dataclass(frozen=True)
class Setting:
    """What is to run where. ``placement_typed`` says that a user has named the placement, which then holds or is refused.

    ``own_micro_batch`` is the model's, where it has given way to sizes that a user has named. ``kept`` has what other points of
    a study have in common with it.

    Everything that costs nothing is checked at once; the layout, an array of all ranks, is made when it is first asked for.
    """

    machine: Machine
    model: Model
    plan: Plan
    mesh: Mesh
    batch: Batch
    ranks_per_node: int
    placement_typed: bool = True
    own_micro_batch: int | None = None
    kept: KeptWork | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, machine: str | Path | Machine, model: str | Path | Model, options: Mapping[str, Any]) -> Setting:
        """Load and check machine, model and options; raises ``InputError`` for what is wrong or contradicts."""
        chosen = load_model(model)
        hardware = load_machine(machine)
        plan = Plan.of(chosen, options, hardware)
        hardware = hardware.with_routing(plan.routing)
        mesh = Mesh.of(plan.mesh)
        if plan.tensor == "2d" and "tp" in mesh.axes:
            mesh = mesh.gridded()
        if chosen.experts:
            mesh = divided(plan, mesh)
        per_node = resolve_ranks_per_node(hardware, plan.placement, plan.ranks_per_node, mesh.ranks)
        room = hardware.nodes * per_node
        if mesh.ranks > room:
            raise InputError(
                f"--mesh {mesh}: {mesh.ranks:,} ranks exceed {hardware.name}:"
                f" {hardware.nodes:,} nodes x {per_node} a node = {room:,}"
            )
        named = [(f"--slow-nodes {plan.slow_nodes}", node) for node in plan.slowness_of_nodes]
        named += [(f"--slow-links {plan.slow_links}", node) for node in plan.shares_of_links]
        for flag, node in named:
            if node >= hardware.nodes:
                raise InputError(f"{flag}: node {node:,}: {hardware.name} has nodes 0 to {hardware.nodes - 1:,}")
        for supernode in plan.shares_of_uplinks:
            flag = f"--slow-uplinks {plan.slow_uplinks}"
            if not hardware.fabric.is_tree:
                raise InputError(
                    f"{flag}: {hardware.name} is no tree of switches ({hardware.fabric.kind}): it has no uplinks"
                )
            if supernode >= hardware.supernodes:
                last = hardware.supernodes - 1
                raise InputError(f"{flag}: supernode {supernode:,}: {hardware.name} has supernodes 0 to {last:,}")
        own: int | None = None
        try:
            batch = Batch.of(plan, chosen, hardware, mesh, per_node)
        except InputError:
            if plan.micro_batch is None or options.get("micro_batch") is not None:
                raise
            own, plan = (
                plan.micro_batch,
                plan.changed(micro_batch=None),
            )  # what is asked for does not divide by it
            batch = Batch.of(plan, chosen, hardware, mesh, per_node)
            if batch.tokens % batch.seq_len:  # parts of sequences: no size of micro-batches would mend that
                raise
        check(Given(chosen, plan, mesh, batch, hardware))
        if chosen.experts and isinstance(plan.router_policy, Trace):
            layers = [number for number, each in enumerate(chosen.stack) if each.moe]
            top_k, groups = plan.top_k or chosen.top_k, plan.prototypes or 0
            plan.router_policy.require_fit(chosen.experts, layers, top_k, groups, plan.drift)
        return cls(hardware, chosen, plan, mesh, batch, per_node, options.get("placement") is not None, own)

    @property
    def composed(self) -> bool:
        """Whether micro-batches that are alike are represented once, as blocks: in pipelines, and where they are many."""
        many = self.batch.micro_batches * len(self.model.stack) > MOST_FLAT
        return self.mesh.size("pp") > 1 or (many and self.plan.depth != "message" and not self.plan.jitter)

    @cached_property
    def expert_axes(self) -> tuple[str, ...]:
        """The axes over which the experts of a layer are spread."""
        return expert_axes(self.plan, self.mesh)

    @cached_property
    def expert_cut(self) -> tuple[str, ...]:
        """The axes along which each expert is cut."""
        return expert_cut(self.plan, self.mesh)

    @cached_property
    def past_loads(self) -> dict[Any, Any]:
        """Loads of earlier steps, kept for balancing policies that look back."""
        return {}

    @cached_property
    def drawn_loads(self) -> dict[Any, Any]:
        """What chance has made of tokens in a step, kept for steps in which it is the same."""
        return {}

    @cached_property
    def holdings(self) -> dict[Any, Any]:
        """What a rank holds of the whole model, once it is worked out."""
        return {}

    def resized(self, plan: Plan, batch: Batch) -> Setting:
        """The same choices with another batch, and ``plan`` that says so: what does not depend on it is known already."""
        other = object.__new__(type(self))
        known = {name: self.__dict__[name] for name in WHATEVER_THE_BATCH if name in self.__dict__}
        other.__dict__.update(
            {name: self.__dict__[name] for name in self.__dataclass_fields__}, plan=plan, batch=batch, **known
        )
        return other

    def with_parts(self) -> Setting:
        """The setting, in which is worked out what all have that differ from it in their batch alone (:meth:`resized`)."""
        for name in WHATEVER_THE_BATCH:
            getattr(self, name)
        return self

    def sharing_holdings(self, known: dict[Any, Any]) -> Setting:
        """The setting, with what others have worked out that hold the same (see ``holding_form``)."""
        self.__dict__["holdings"] = known
        return self

    @cached_property
    def dealt(self) -> tuple[object, ...]:
        """What decides which layers a stage has: its chunks, but of equal layers it has as many, whatever its chunks."""
        plan = self.plan
        chunks = plan.chunks if len(self.kinds) > 1 or self.folded else 1
        return chunks, self.folded, plan.stage_layers, plan.recompute_layers

    @cached_property
    def rank_work(self) -> tuple[object, ...]:
        """What the passes of a rank depend on: which part of each layer and of how many tokens it works on, and how."""
        plan, mesh = self.plan, self.mesh
        return (
            mesh.size("tp"),
            mesh.size("col"),
            mesh.size(*CONTEXT),
            mesh.size("ep"),
            self.batch.micro_tokens,
            self.batch.seq_len,
            self.machine.core_group.tiles is not None
            and self.batch.micro_batches > 1,  # sums of gradients are charged there
            plan.sequence_parallel,
            plan.attention,
            plan.recompute,
            None if plan.recomputed_layers is None else self.kinds,
            self.expert_axes,
            mesh.size(*self.expert_axes),
            mesh.size(*self.expert_cut),
            plan.loss,
            plan.framework,
            plan.precision,
            plan.prototypes,
            plan.top_k,
            plan.all_to_all,
            plan.balancer,
            plan.router,
            plan.tensor_overlap,
            plan.tensor_async,
            plan.cuda_graphs,
            plan.dispatch,
            plan.route_nodes,
        )

    @cached_property
    def lowered(self) -> dict[Any, Any]:
        """What steps have in common once they are lowered, by their formats."""
        return {}

    @cached_property
    def layout(self) -> Layout:
        """Where every rank lives; raises ``InputError`` where the mesh exceeds a level of the machine."""
        return self._placed[1]

    @property
    def placement(self) -> str | dict[str, str]:
        """The plan's placement, or the one that it gives way to: one that nobody typed stops no mesh for which there is room."""
        return self._placed[0]

    def plan_used(self) -> dict[str, Any]:
        """The plan as plain data, with the placement that ranks have."""
        return {**self.plan.to_plain(), "placement": self.placement}

    @cached_property
    def _placed(self) -> tuple[str | dict[str, str], Layout]:
        if self.kept:
            return self.kept.of("layout", layout_form(self), self._place)
        return self._place()

    def _place(self) -> tuple[str | dict[str, str], Layout]:
        try:
            return self.plan.placement, self._on(self.plan.placement)
        except InputError as wrong:
            if self.placement_typed:
                raise
            try:
                return WITHOUT_GAPS, self._on(WITHOUT_GAPS)
            except InputError:
                raise wrong from None

    def _on(self, placement: str | Mapping[str, str]) -> Layout:
        found = place(self.mesh, self.machine, placement, self.ranks_per_node, self.plan.nodes_per_supernode)
        cards, uplinks = (
            tuple(sorted(each.items())) for each in (self.plan.shares_of_links, self.plan.shares_of_uplinks)
        )
        return replace(found, slow_cards=cards, slow_uplinks=uplinks) if cards or uplinks else found

    def micro_tokens(self, decoder: bool = False) -> int:
        """Tokens of a data-parallel rank in a micro-batch; of a decoder that has a length of its own, its own."""
        tokens, length = self.batch.micro_tokens, self.model.decoder_seq_len
        return tokens * length // self.batch.seq_len if decoder and length else tokens

    @cached_property
    def processor(self) -> Processor:
        """What a rank computes on, with its share of its node's host."""
        return self.machine.processor(self.ranks_per_node, min(self.mesh.ranks, self.ranks_per_node))

    @property
    def paced(self) -> bool:
        """Whether a host starts kernels one by one, and its time for that counts."""
        return self.machine.core_group.launch is not None and not self.plan.cuda_graphs

    @property
    def framework(self) -> TrainingFramework | None:
        """The framework that training runs in: the one that is named, else the usual one of the kind of sharding.

        None where nobody names one and the machine does not say what a framework takes: memory is then that of formulas.
        """
        if self.plan.named_framework or not self.processor.framework:
            return self.plan.named_framework
        return FRAMEWORKS["fsdp" if self.plan.sharding.shards_weights else "megatron"]

    @cached_property
    def folded(self) -> bool:
        """Whether every second chunk of the stages goes back from the last to the first."""
        return self.mesh.size("pp") > 1 and find_pipeline(self.plan.pipeline).folded

    @property
    def last_part(self) -> tuple[int, int]:
        """(stage, chunk) of the model's last part, which has the output layer."""
        stages = self.mesh.size("pp")
        chunks = self.plan.chunks if stages > 1 else 1
        return place_of(stages * chunks - 1, stages, self.folded)

    @cached_property
    def stack(self) -> tuple[Layer, ...]:
        """The model's layers; of those that are ``kept`` the plan recomputes nothing (``--recompute-layers``)."""
        stack, chosen = self.model.stack, self.plan.recomputed_layers
        if chosen is None:
            return stack
        again = {layer for part in self.parts for layer in chosen.of(part)}
        return one_each(kind if layer in again else replace(kind, kept=True) for layer, kind in enumerate(stack))

    def sight(self, layer: Layer) -> Sight:
        """Which keys the queries of a layer meet: the model's, of a document alone where several share a sequence."""
        return replace(self.model.sight(layer), documents=self.plan.documents)

    @cached_property
    def parts(self) -> tuple[range, ...]:
        """The layers of every virtual stage, chunk · stages + stage, in the order of the model unless stages are folded.

        Those that predict further tokens are on the last one, where the output layer is (Megatron-LM).
        """
        stages, plan, every = self.mesh.size("pp"), self.plan, len(self.model.stack)
        if stages == 1:
            return (range(every),)
        *parts, last = layers_by_part(plan.stage_layers, self.model.depth, stages, plan.chunks)
        found = (*parts, range(last.start, every))
        if not self.folded:
            return found
        places = (divmod(virtual, stages) for virtual in range(len(found)))
        return tuple(found[part_of(stage, chunk, stages, folded=True)] for chunk, stage in places)

    @cached_property
    def kinds(self) -> tuple[Layer, ...]:
        """The kinds of its layers, each once, in the order in which they come."""
        return self.model.kinds if self.plan.recomputed_layers is None else tuple(dict.fromkeys(self.stack))

    @property
    def attention_kernel(self) -> str:
        """How attention runs: the plan's kernel by name, of ``fused`` the machine's fastest, if it names any."""
        if self.plan.kernel.keeps_scores or self.plan.kernel.name:
            return self.plan.attention
        size = (self.model.query_size + self.model.value_size) / 2
        return self.processor.attention_kernel("", size) or self.plan.attention

    @property
    def top_k(self) -> int:
        """Experts that a token goes to."""
        return self.plan.prototypes or self.plan.top_k or self.model.top_k
