"""The plan: everything that a user chooses about a run, from the mesh to the seed, checked and read.

What there is to choose stands in :class:`~athanor.workloads.plan.plan_fields.PlanFields`. Registries and arrays are imported
where they are asked, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError, suggestion
from ...hardware.frozen_dict import frozen
from ...hardware.shown import Shown
from ..mesh.mesh_text import mesh_sizes
from .expert_axes import fold
from .option import Option, options_of, read_options
from .plan_fields import PlanFields

if TYPE_CHECKING:
    from ...hardware.machine import Machine
    from ..attention_kernels import AttentionKernel
    from ..frameworks import TrainingFramework
    from ..model.model import Model
    from ..model.precision import PrecisionSchedule
    from ..optimizers import Optimizer
    from ..recomputation import Recomputation
    from ..recomputation.recomputed_layers import RecomputedLayers
    from ..routing.balancers import Balancer
    from ..routing.routers import Router
    from ..sharding import Sharding

OFFLOADS = {
    "optimizer": "master weights and the optimizer's state in host memory, updated on the host's cores (ZeRO-Offload)",
    "parameters": "weights of layers in host memory, fetched before each pass",
    "activations": "inputs of layers in host memory between the passes",
    "experts": "weights of experts in host memory, fetched layer by layer",
}

SIZES = frozenset({"tokens_per_rank", "global_batch"})
"""Two ways to say how large a step is: naming one puts both of the model's own aside."""

BELONGS = {"pipeline": "pp", "chunks": "pp", "stage_layers": "pp", "tensor": "tp", "sequence_parallel": "tp"}
"""Axes without which these say nothing: naming a mesh that lacks one puts the model's own choice aside."""


@dataclass(frozen=True, kw_only=True)
class Plan(PlanFields, Shown):
    """The choices for a run, under the names that the command line gives them; what is None follows from the others.

    Batch: either ``tokens_per_rank`` (of a data-parallel rank, with all that share its tokens), or ``global_batch`` sequences of
    ``seq_len`` over all of these, or the whole sequences in the machine's own ``tokens_per_node``, one at least. A step is cut
    into micro-batches of ``micro_batch`` sequences; where none is named, into as few as keep each below the machine's
    ``tokens_per_node``, none less than a sequence.

    Values are checked when a plan is made: raises :class:`InputError` with the option and what is allowed.
    """

    def __post_init__(self) -> None:
        table = {field.name: getattr(self, field.name) for field in fields(self)}
        known = self.options()
        given = {key: value for key, value in table.items() if value is not None or not known[key].optional}
        found, wrong = read_options(known, given, lambda key: known[key].flag)
        if wrong:
            raise InputError(wrong)
        for key, value in found.items():
            object.__setattr__(self, key, frozen(value))

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """Every option by name, in the order of the fields."""
        return _options()

    @classmethod
    def of(cls, model: Model, options: Mapping[str, Any], machine: Machine | None = None) -> Plan:
        """The model's recommended plan with a user's options in place of its own; options that are None do not count.

        What neither names is as the machine has it (:attr:`Machine.defaults`), and then as the fields here say. Raises
        :class:`InputError` naming the flag (or, for the model's or the machine's own plan, its key) and what is allowed.
        """
        given = {key: value for key, value in options.items() if value is not None}
        sizes = _sizes(given.get("mesh"))
        recommended = {key: value for key, value in model.plan.items() if not _set_aside(key, given, sizes, model.plan)}
        table = {**(machine.defaults if machine else {}), **recommended, **given}
        if "mesh" not in table:
            raise InputError(f"--mesh: {model.name} recommends no plan; write for example --mesh ep=4,dp=2")

        def where(key: str) -> str:
            file = machine if machine and key not in recommended else model
            return f"--{key.replace('_', '-')}" if key in given else f"{file.name}: plan.{key}"

        found, wrong = read_options(cls.options(), table, where)
        if wrong:
            raise InputError(wrong)
        plan = cls(**fold(found))
        plan.check()
        if model.experts and (plan.top_k or model.top_k) > model.experts:
            raise InputError(f"--top-k {plan.top_k}: {model.name} has {model.experts} experts a layer")
        return plan

    def check(self) -> None:
        """Parse what is text; raises :class:`InputError` for unknown names."""
        from ..collectives import find
        from ..mesh.mesh import Mesh
        from ..pipelines.stage_layers import parse

        _ = (
            self.router_policy,
            self.balancing,
            self.precisions,
            self.optimizing,
            self.sharding,
            self.recomputation,
            self.recomputed_layers,
            self.kernel,
            self.named_framework,
            Mesh.of(self.mesh),
            self.offloads,
            self.slowness_of_nodes,
            self.shares_of_links,
            self.shares_of_uplinks,
            self.documents,
            parse(self.stage_layers),
        )
        try:
            find("all-to-all", self.all_to_all)
        except InputError as wrong:
            raise InputError(f"--{wrong}") from None

    @cached_property
    def router_policy(self) -> Router:
        """The router."""
        from ..routing.routers import ROUTERS

        return ROUTERS.find(self.router)

    @cached_property
    def balancing(self) -> Balancer:
        """The balancing policy."""
        from ..routing.balancers import BALANCERS

        return BALANCERS.find(self.balancer)

    @cached_property
    def optimizing(self) -> Optimizer:
        """The optimizer."""
        from ..optimizers import OPTIMIZERS

        return OPTIMIZERS.find(self.optimizer)

    @cached_property
    def precisions(self) -> PrecisionSchedule:
        """Precision policies by iteration."""
        from ..model.precision import PrecisionSchedule

        return PrecisionSchedule.parse(self.precision, self.gradients, self.moments)

    @cached_property
    def sharding(self) -> Sharding:
        """What data-parallel ranks share out."""
        from ..sharding import SHARDINGS

        return SHARDINGS.find(self.zero)

    @cached_property
    def kernel(self) -> AttentionKernel:
        """How attention is worked out."""
        from ..attention_kernels import ATTENTION_KERNELS

        return ATTENTION_KERNELS.find(self.attention)

    @cached_property
    def recomputation(self) -> Recomputation:
        """What the backward pass works out again."""
        from ..recomputation import RECOMPUTATIONS

        return RECOMPUTATIONS.find(self.recompute)

    @cached_property
    def named_framework(self) -> TrainingFramework | None:
        """The framework that is named."""
        from ..frameworks import FRAMEWORKS

        return None if self.framework is None else FRAMEWORKS.find(self.framework)

    @cached_property
    def recomputed_layers(self) -> RecomputedLayers | None:
        """Of which layers something is worked out again; None for all."""
        from ..recomputation.recomputed_layers import RecomputedLayers

        return None if self.recompute_layers == "all" else RecomputedLayers.parse(self.recompute_layers)

    @property
    def gradients_overlap(self) -> bool:
        """Whether gradients are reduced, and what is sharded or in host memory fetched, beside the passes."""
        return self.overlap != "none"

    @property
    def weights_overlap(self) -> bool:
        """Whether shards of updated weights are gathered beside the first forward pass of the next step."""
        return self.overlap == "all" and self.sharding.gathers_updates

    @cached_property
    def offloads(self) -> frozenset[str]:
        """What is kept in the host's memory, all of it or a share."""
        return frozenset(self.offload_shares)

    @property
    def offload_shares(self) -> dict[str, float]:
        """What is kept in the host's memory, and which share of it: written ``optimizer``, or ``parameters:0.5`` for a half."""
        found: dict[str, float] = {}
        for text in [] if self.offload == "none" else self.offload.split(","):
            name, colon, share = text.partition(":")
            if name not in OFFLOADS:
                raise InputError(f"--offload {text}: no such thing to offload{suggestion(name, OFFLOADS)}")
            try:
                found[name] = float(share) if colon else 1.0
            except ValueError:
                found[name] = 0.0
            if not 0 < found[name] <= 1:
                raise InputError(f"--offload {text}: the share must be above 0 and at most 1, as in {name}:0.5")
        return found

    @property
    def slowness_of_nodes(self) -> dict[int, float]:
        """How many times as long nodes take that are named as slow (or, below 1, as fast)."""
        return _by_place(
            "--slow-nodes", self.slow_nodes, "NODE:FACTOR, a node from 0 on and a factor above 0: 3:1.2", inf
        )

    @property
    def shares_of_links(self) -> dict[int, float]:
        """The share of their rate that the network cards of named nodes have."""
        return _by_place(
            "--slow-links", self.slow_links, "NODE:SHARE, a node from 0 on and a share of (0, 1]: 3:0.5", 1.0
        )

    @property
    def shares_of_uplinks(self) -> dict[int, float]:
        """The share of their rate that the links of named supernodes to the others have."""
        needed = "SUPERNODE:SHARE, a supernode from 0 on and a share of (0, 1]: 2:0.5"
        return _by_place("--slow-uplinks", self.slow_uplinks, needed, 1.0, "supernode")

    @property
    def documents(self) -> tuple[int, ...]:
        """Lengths of the documents that fill a sequence, over and over; none where it is one."""
        text = self.document_lengths
        parts = [] if text == "none" else [each.strip() for each in text.split(",")]
        if wrong := [each for each in parts if not each.isdecimal() or not int(each)]:
            raise InputError(f"--document-lengths {wrong[0]}: write lengths in tokens, each at least 1: 512,1536")
        return tuple(int(each) for each in parts)

    def changed(self, **options: Any) -> Plan:
        """The same plan with other values, which are taken as they are: they come from a plan or from code."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__getstate__())
        other.__dict__.update(options)
        return other

    def resized(self, micro_batch: int | None) -> Plan:
        """The same plan with micro-batches of so many sequences; what follows from its other choices is known already."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.__dict__["micro_batch"] = micro_batch
        return other

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: copies work out anew what follows from them."""
        own = self.__dict__
        return {name: own[name] for name in self.__dataclass_fields__}

    def to_plain(self) -> dict[str, Any]:
        """The plan as plain data, by option."""
        return {
            field.name: dict(value) if isinstance(value := getattr(self, field.name), dict) else value
            for field in fields(self)
        }


def _by_place(flag: str, text: str, needed: str, most: float, what: str = "node") -> dict[int, float]:
    """Numbers above 0, up to ``most``, by node or another place; raises :class:`InputError` that says what is ``needed``."""
    found: dict[int, float] = {}
    for part in [] if text == "none" else text.split(","):
        name, _, value = (each.strip() for each in part.partition(":"))
        place = int(name) if name.isdecimal() else -1
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if place < 0 or not 0 < number <= most or number == inf:
            raise InputError(f"{flag} {part}: write {needed}")
        if place in found:
            raise InputError(f"{flag} {text}: {what} {place} is named twice")
        found[place] = number
    return found


@cache
def _options() -> Mapping[str, Option]:
    return options_of(Plan)


def _sizes(mesh: Any) -> dict[str, int]:
    """Sizes of a mesh that a user has named, as far as they can be read; what is wrong with them is said later."""
    try:
        return mesh_sizes(mesh) if isinstance(mesh, str | Mapping) else {}
    except ValueError:
        return {}


def _set_aside(key: str, given: Mapping[str, Any], mesh: Mapping[str, int], own: Mapping[str, Any]) -> bool:
    """Whether what a user has named leaves no room for the model's own choice of an option."""
    if key in SIZES:
        return bool(SIZES & set(given))
    if key == "stage_layers" and mesh:
        return bool(mesh.get("pp") != own.get("mesh", {}).get("pp"))  # they are numbers of its own stages
    if key in ("dispatch", "route_nodes") and ("all_to_all" in given or "dispatch" in given):
        return True
    lacks = bool(mesh) and key in BELONGS and BELONGS[key] not in mesh
    return lacks or (key == "chunks" and "pipeline" in given)
