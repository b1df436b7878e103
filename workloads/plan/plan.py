"""The plan: everything that a user chooses about a run, from the mesh to the seed, checked against the model and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from ...hardware.errors import InputError, suggestion
from ...hardware.machine import Machine
from ...hardware.records import Record, first_error
from ..mesh.mesh import Mesh
from ..model.model import Model
from ..model.precision import PrecisionSchedule
from ..pipelines.stage_layers import parse
from ..routing.balancers import BALANCERS, Balancer
from ..routing.routers import ROUTERS, Router

OFFLOADS = {
    "optimizer": "master weights and moments in host memory, Adam on the host's cores (ZeRO-Offload)",
    "parameters": "weights of layers in host memory, fetched before each pass",
    "activations": "inputs of layers in host memory between the passes",
    "experts": "weights of experts in host memory, fetched layer by layer",
}

SIZES = frozenset({"tokens_per_rank", "global_batch"})
"""Two ways to say how large a step is: naming one puts both of the model's own aside."""

BELONGS = {"pipeline": "pp", "chunks": "pp", "stage_layers": "pp", "tensor": "tp", "sequence_parallel": "tp"}
"""Axes without which these say nothing: naming a mesh that lacks one puts the model's own choice aside."""


class Plan(Record):
    """The choices for a run, under the names that the command line gives them; what is None is derived.

    Batch: either ``tokens_per_rank`` (of a data-parallel rank, with all that share its tokens), or ``global_batch`` sequences of
    ``seq_len`` over all of these, or the machine's own ``tokens_per_node``. A step is cut into micro-batches of ``micro_batch``
    sequences; where none is named, into as few as keep each below the machine's ``tokens_per_node``.
    """

    mesh: dict[str, int]
    placement: str | dict[str, str] = "auto"
    ranks_per_node: int | None = Field(default=None, gt=0)
    nodes_per_supernode: int | None = Field(default=None, gt=0)
    tokens_per_rank: int | None = Field(default=None, gt=0)
    global_batch: int | None = Field(default=None, gt=0)
    micro_batch: int | None = Field(default=None, gt=0)
    seq_len: int | None = Field(default=None, gt=0)
    top_k: int | None = Field(default=None, gt=0)
    precision: str = "layerwise"
    router: str = "uniform"
    drift: float = Field(default=0.0, ge=0, le=1)
    balancer: str = "swipe"
    all_to_all: Literal["linear", "two-level", "pairwise-shift", "pairwise-xor", "bruck"] = "linear"
    tensor: Literal["1d", "2d"] = "1d"
    sequence_parallel: bool = False
    tensor_overlap: bool = False
    pipeline: str = "1f1b"
    chunks: int = Field(default=1, gt=0)
    stage_layers: str = "even"
    scatter_gather: bool = False
    expert_tensor: Literal["split", "whole"] = "split"
    prototypes: int | None = Field(default=None, gt=0)
    zero: Literal["0", "1", "2", "3", "++", "hierarchical"] = "hierarchical"
    offload: str = "none"
    offload_delay: bool = False
    recompute: Literal["none", "selective", "products", "full"] = "none"
    attention: Literal["unfused", "fused"] = "unfused"
    accounting: Literal["apex-o2", "fp32"] = "apex-o2"
    overlap: Literal["none", "gradients", "all"] = "none"
    routing: str | None = None
    depth: Literal["auto", "bound", "fluid", "message"] = "auto"
    jitter: float = Field(default=0.0, ge=0, lt=1)
    speed_spread: float = Field(default=0.0, ge=0, lt=1)
    steps: int = Field(default=1, gt=0)
    seed: int = Field(default=0, ge=0)

    @classmethod
    def of(cls, model: Model, options: Mapping[str, Any]) -> Plan:
        """The model's recommended plan with a user's options in place of its own; options that are None do not count.

        Raises :class:`InputError` naming the flag (or, for the model's own plan, its key) and what is allowed.
        """
        given = {key: value for key, value in options.items() if value is not None}
        recommended = {key: value for key, value in model.plan.items() if not _set_aside(key, given, model.plan)}
        table = {**recommended, **given}
        if "zero" in table:
            table["zero"] = str(table["zero"])
        if "mesh" not in table:
            raise InputError(f"--mesh: {model.name} recommends no plan; write for example --mesh ep=4,dp=2")
        try:
            plan = cls.model_validate(table)
        except ValidationError as wrong:
            raise InputError(_reason(wrong, model, given)) from None
        plan.check()
        if model.experts and (plan.top_k or model.top_k) > model.experts:
            raise InputError(f"--top-k {plan.top_k}: {model.name} has {model.experts} experts a layer")
        return plan

    def check(self) -> None:
        """Parse what is text; raises :class:`InputError` for unknown names."""
        _ = (
            self.router_policy,
            self.balancing,
            self.precisions,
            Mesh.of(self.mesh),
            self.offloads,
            parse(self.stage_layers),
        )

    @property
    def router_policy(self) -> Router:
        """The router."""
        return ROUTERS.find(self.router)

    @property
    def balancing(self) -> Balancer:
        """The balancing policy."""
        return BALANCERS.find(self.balancer)

    @property
    def precisions(self) -> PrecisionSchedule:
        """Precision policies by iteration."""
        return PrecisionSchedule.parse(self.precision)

    @property
    def gradients_overlap(self) -> bool:
        """Whether gradients are reduced, and what is sharded or in host memory fetched, beside the passes."""
        return self.overlap != "none"

    @property
    def weights_overlap(self) -> bool:
        """Whether shards of updated weights are gathered beside the first forward pass of the next step."""
        return self.overlap == "all" and self.shards in (1, 2)

    @property
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
    def shards(self) -> int:
        """How much ZeRO shards: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""
        return {"0": 0, "hierarchical": 1, "1": 1, "2": 2, "3": 3, "++": 3}[self.zero]

    def changed(self, **options: Any) -> Plan:
        """The same plan with other options."""
        return self.model_copy(update=options)


def _set_aside(key: str, given: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether what a user has named leaves no room for the model's own choice of an option."""
    if key in SIZES:
        return bool(SIZES & set(given))
    mesh = given.get("mesh")
    if key == "stage_layers" and isinstance(mesh, Mapping):
        return bool(mesh.get("pp") != own.get("mesh", {}).get("pp"))  # they are numbers of its own stages
    lacks = isinstance(mesh, Mapping) and key in BELONGS and BELONGS[key] not in mesh
    return lacks or (key == "chunks" and "pipeline" in given)


def _reason(wrong: ValidationError, model: Model, given: Mapping[str, Any]) -> str:
    """One line for the first error of a plan, under the flag's name or that of the model file's key."""
    key, found, reason = first_error(Plan, wrong)
    where = f"--{key.replace('_', '-')}" if key in given else f"{model.name}: plan.{key}"
    return f"{where}: {reason}" if reason.startswith("unknown key") else f"{where} {found}: {reason}"


@dataclass(frozen=True)
class Batch:
    """Tokens of a data-parallel rank: in a step, and in each of its ``micro_batches``; and the length of a sequence.

    Ranks that share these tokens (along cp, tp and pp) count as one.
    """

    tokens: int
    micro_batches: int
    seq_len: int

    @property
    def micro_tokens(self) -> int:
        """Tokens of a rank in one micro-batch."""
        return self.tokens // self.micro_batches

    @classmethod
    def of(cls, plan: Plan, model: Model, machine: Machine, mesh: Mesh, ranks_per_node: int) -> Batch:
        """The batch of a plan; raises :class:`InputError` where sizes contradict or do not divide, with the numbers."""
        seq_len = plan.seq_len or model.seq_len
        usual = max(1, machine.calibration.tokens_per_node // ranks_per_node)
        tokens = plan.tokens_per_rank or usual
        if plan.tokens_per_rank and plan.global_batch:
            raise InputError("--tokens-per-rank and --global-batch: give one of the two")
        if plan.global_batch:
            tokens, rest = divmod(plan.global_batch * seq_len, mesh.replicas)
            if rest:
                raise InputError(
                    f"--global-batch {plan.global_batch:,}: its {plan.global_batch * seq_len:,} tokens"
                    f" (--seq-len {seq_len:,}) do not divide over {mesh.replicas:,} data-parallel ranks"
                )
        micro_batch = plan.micro_batch or (1 if mesh.size("pp") > 1 and tokens % seq_len == 0 else None)
        return cls(tokens, _micro_batches(tokens, usual, seq_len, micro_batch), seq_len)


def _micro_batches(tokens: int, usual: int, seq_len: int, micro_batch: int | None) -> int:
    """Into how many micro-batches a rank's tokens are cut; raises :class:`InputError` where they cannot be."""
    if micro_batch:
        count, rest = divmod(tokens, micro_batch * seq_len)
        if rest:
            raise InputError(
                f"--micro-batch {micro_batch}: {micro_batch * seq_len:,} tokens do not divide the {tokens:,} of a rank in a step"
                " (--tokens-per-rank, --global-batch)"
            )
        return count
    if tokens <= usual:
        return 1
    if tokens % usual == 0:
        return tokens // usual
    sequences, rest = divmod(tokens, seq_len)
    if rest:
        nearest = " or ".join(f"{size:,}" for size in (sequences * seq_len, (sequences + 1) * seq_len) if size)
        raise InputError(
            f"--tokens-per-rank {tokens:,}: more than the {usual:,} of one micro-batch and no whole number of sequences"
            f" (--seq-len {seq_len:,}); nearest {nearest}"
        )
    most = max(1, usual // seq_len)
    return sequences // next(size for size in range(most, 0, -1) if sequences % size == 0)
