"""The plan: everything that a user chooses about a run, from the mesh to the seed. Its fields are the one list of options.

The command line, run files, :class:`~athanor.workloads.plan.plan_options.PlanOptions`, ``docs/cli.md`` and the choices of
``athanor plan`` are made from them. Registries and arrays are imported where they are asked, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from ...hardware.errors import InputError, suggestion
from ...hardware.frozen_dict import frozen
from ..mesh.mesh_text import mesh_sizes
from .option import REQUIRED, Option, option, options_of, read_options

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
class Plan:
    """The choices for a run, under the names that the command line gives them; what is None follows from the others.

    Batch: either ``tokens_per_rank`` (of a data-parallel rank, with all that share its tokens), or ``global_batch`` sequences of
    ``seq_len`` over all of these, or the whole sequences in the machine's own ``tokens_per_node``, one at least. A step is cut
    into micro-batches of ``micro_batch`` sequences; where none is named, into as few as keep each below the machine's
    ``tokens_per_node``, none less than a sequence.

    Values are checked when a plan is made: raises :class:`InputError` with the option and what is allowed.
    """

    mesh: dict[str, int] = option(
        "Mesh and placement",
        REQUIRED,
        "How many ranks lie along each axis of parallelism, outermost axis first.",
        form="AXIS=N,...",
        names="axes",
        fixable=False,
        inference=True,
    )
    placement: str | dict[str, str] = option(
        "Mesh and placement",
        "auto",
        "Where ranks live: a rule by name, the order in which axes fill the nodes (block:tp,dp), or the level of the"
        " machine that each axis lies on (AXIS=LEVEL,... of core_group, node, supernode, joined by +).",
        form="PLACEMENT",
        names="placements",
        searched=True,
        inference=True,
    )
    ranks_per_node: int | None = option(
        "Mesh and placement",
        None,
        "Ranks that share a node; must divide its core groups.",
        more=0,
        otherwise="one for each accelerator, else as few as hold the mesh",
        inference=True,
    )
    nodes_per_supernode: int | None = option(
        "Mesh and placement",
        None,
        "Nodes to use of each supernode; the others stay idle.",
        more=0,
        otherwise="all",
    )
    tokens_per_rank: int | None = option(
        "Batch",
        None,
        "Size of a step as tokens of each data-parallel rank.",
        unit="tokens",
        more=0,
        otherwise="the machine's tokens_per_node",
        fixable=False,
    )
    global_batch: int | None = option(
        "Batch",
        None,
        "Size of a step as sequences of all ranks together, instead of --tokens-per-rank.",
        unit="sequences",
        more=0,
        otherwise="from --tokens-per-rank",
        fixable=False,
    )
    micro_batch: int | None = option(
        "Batch",
        None,
        "Sequences that a data-parallel rank computes at once; a step runs through as many micro-batches as it takes.",
        unit="sequences",
        more=0,
        otherwise="1 with pipeline stages, else what the machine's tokens_per_node holds",
        searched=True,
    )
    seq_len: int | None = option(
        "Batch", None, "Length of a sequence.", unit="tokens", more=0, otherwise="the model's own"
    )
    document_lengths: str = option(
        "Batch",
        "none",
        "Lengths of the documents that are packed into a sequence, over and over until it is full, such as 2048 or 512,1536:"
        " tokens attend to their own document alone.",
        form="TOKENS,...",
        otherwise="a sequence is one document",
    )
    precision: str = option(
        "Precision and optimizer",
        "bf16",
        "Number formats of weights, products, gradients and update: a policy, or a schedule over iterations such as"
        " O0:100,layerwise.",
        form="POLICY",
        otherwise="bf16, O2 or O0: the first that the machine's core groups have",
        names="precisions",
        inference=True,
    )
    gradients: Literal["fp32", "bf16", "fp16"] | None = option(
        "Precision and optimizer",
        None,
        "Number format of gradients, which are kept, added up and reduced in it.",
        otherwise="the policy's",
    )
    moments: Literal["fp32", "bf16", "fp16", "fp8"] | None = option(
        "Precision and optimizer",
        None,
        "Number format of the optimizer's moments.",
        otherwise="the policy's",
    )
    activations: Literal["fp8"] | None = option(
        "Precision and optimizer",
        None,
        "Number format in which inputs of activation functions, of FFN and experts, wait for the backward pass"
        " (DeepSeek-V3: those of SwiGLU in eight bits).",
        otherwise="that of products' results",
    )
    optimizer: str = option(
        "Precision and optimizer",
        "adam",
        "What updates weights, with hyper-parameters if you like (sgd:momentum=0.95,learning_rate=0.1), or a class of"
        " yours as module:Class.",
        form="OPTIMIZER",
        names="optimizers",
        searched=True,
        tried=(),
    )
    top_k: int | None = option(
        "Experts",
        None,
        "Experts that each token is sent to.",
        more=0,
        otherwise="the model's own",
        inference=True,
    )
    router: str = option(
        "Experts",
        "uniform",
        "How popular the experts are: uniform, zipf:S (Zipf's law with exponent S), table:NAME or table:FILE.csv"
        " (recorded popularity), trace:FILE (recorded tokens of each step, layer and expert, replayed), or a class of yours"
        " as module:Class.",
        form="ROUTER",
        names="routers",
        inference=True,
    )
    drift: float = option(
        "Experts",
        0.0,
        "How much loads of experts change from one step to the next: 0 keeps them, 1 draws them anew, in between they"
        " correlate by 1 - X.",
        least=0,
        most=1,
    )
    balancer: str = option(
        "Experts",
        "none",
        "What evens out the experts' loads: none, capacity:F (drop what exceeds F times the mean), padded:F (also send"
        " and compute empty places), swipe, even, or a class of yours as module:Class.",
        form="BALANCER",
        names="balancers",
        inference=True,
    )
    expert_tensor: Literal["split", "whole"] = option(
        "Experts",
        "split",
        "With tp in the mesh: split every expert over the ranks of tp, or keep experts whole and spread them over tp too.",
        searched=True,
    )
    prototypes: int | None = option(
        "Experts",
        None,
        "Divide the experts of a layer into this many groups; each token goes to its best expert of every group (M6-T).",
        more=0,
        otherwise="no groups",
    )
    all_to_all: str = option(
        "Experts",
        "linear",
        "Algorithm of the exchange that brings tokens to experts and back.",
        form="ALGORITHM",
        names="all-to-alls",
        inference=True,
    )
    dispatch: Literal["copies", "node-limited"] = option(
        "Experts",
        "copies",
        "How tokens go to experts of other nodes: a copy for each expert, or once for each node, where it is handed on (DeepEP).",
        simulated_only=True,
    )
    route_nodes: int | None = option(
        "Experts",
        None,
        "Most nodes that the experts of a token lie on, with --dispatch node-limited.",
        more=0,
        otherwise="as many as its choices happen to lie on",
        simulated_only=True,
    )
    tensor: Literal["1d", "2d"] = option(
        "Tensor and sequence parallelism",
        "1d",
        "How the ranks of tp cut matrices: 1d, by columns and rows (Megatron-LM), or 2d, on a square grid (SUMMA).",
        searched=True,
        tried=("1d",),
    )
    sequence_parallel: bool = option(
        "Tensor and sequence parallelism",
        False,
        "Also divide norms, dropout and residuals over tp, by tokens.",
        searched=True,
    )
    tensor_overlap: bool = option(
        "Tensor and sequence parallelism",
        False,
        "Run the exchanges over tp while the products before and after them compute.",
        simulated_only=True,
    )
    pipeline: str = option(
        "Pipeline",
        "1f1b",
        "Order of forward and backward passes on the pipeline stages: by name, or a class of yours as module:Class.",
        form="PIPELINE",
        names="pipelines",
        searched=True,
    )
    chunks: int = option(
        "Pipeline",
        1,
        "Model chunks (virtual stages) on each pipeline stage, for --pipeline interleaved; 2 for zb-v and dualpipe-v.",
        more=0,
        searched=True,
    )
    stage_layers: str = option(
        "Pipeline",
        "even",
        "How layers are divided over stages: even, ends (embedding and output layer count as one layer each), or the"
        " number of each stage as N,N,....",
        form="WAY",
        names="stage-layers",
        searched=True,
    )
    scatter_gather: bool = option(
        "Pipeline",
        False,
        "Between stages each rank of tp sends only its 1/tp of the activations; the receiving ranks gather them"
        " (Megatron-LM).",
        simulated_only=True,
    )
    zero: str = option(
        "Sharding and offload",
        "0",
        "What data-parallel ranks shard instead of replicating (ZeRO): 0 nothing, 1 optimizer state, 2 gradients too,"
        " 3 weights too, shard-grad-op (3 whose weights stay whole until the backward pass), ++ (ZeRO++: 3 with 8-bit"
        " weights and 4-bit gradients), or hierarchical (1, reduced inside"
        " supernodes first, then across: BaGuaLu).",
        form="KIND",
        names="shardings",
        searched=True,
    )
    offload: str = option(
        "Sharding and offload",
        "none",
        "What lies in the host's memory: optimizer, parameters, activations, experts, joined by commas, or a share of"
        " one such as experts:0.5.",
        form="WHAT,...",
        names="offloads",
        searched=True,
        inference=True,
    )
    offload_delay: bool = option(
        "Sharding and offload",
        False,
        "Let the host update weights while the next step runs, which then uses weights one update old.",
    )
    recompute: str = option(
        "Memory and recomputation",
        "none",
        "What the backward pass computes again instead of keeping: none, selective (scores and softmax of attention),"
        " products (also every second matrix product), full (whole layers), or modules:NAME+NAME+... as Megatron-LM names"
        " them: core_attn, layernorm, mla_up_proj, mlp, moe, moe_act, shared_experts.",
        form="KIND",
        names="recomputations",
        searched=True,
    )
    recompute_layers: str = option(
        "Memory and recomputation",
        "all",
        "Of which layers: all, every:N (every N-th of the model), or first:N (the first N of each stage, or of each chunk:"
        " Megatron-LM's block method).",
        form="WHICH",
        names="recomputed-layers",
        searched=True,
        tried=(),
    )
    attention: str = option(
        "Memory and recomputation",
        "unfused",
        "Attention as separate operations, or as one fused kernel that never writes its scores: one by name, or fused, the"
        " fastest that the machine has.",
        form="KERNEL",
        names="attention-kernels",
        searched=True,
        tried=(),
        inference=True,
    )
    loss: Literal["unfused", "fused"] = option(
        "Memory and recomputation",
        "unfused",
        "Cross-entropy with a copy of the logits in single precision, or as one fused kernel that leaves gradients in"
        " the logits' place (Transformer Engine's, Liger's).",
    )
    framework: str | None = option(
        "Memory and recomputation",
        None,
        "Whose memory is counted beside formulas, on machines whose file has [core_group.framework]: megatron[:RELEASE of"
        " Transformer Engine], deepspeed, fsdp (PyTorch's, single-precision shards), or a class of yours as module:Class.",
        form="FRAMEWORK",
        names="frameworks",
        otherwise="where the machine has one: fsdp with --zero 3 and ++, else megatron",
    )
    accounting: Literal["apex-o2", "bagualu", "fp32"] = option(
        "Memory and recomputation",
        "apex-o2",
        "How bytes of memory are counted: apex-o2, what the precision's formats take; bagualu, the same"
        " without the output layer's inputs; fp32, 24 bytes a parameter.",
    )
    overlap: Literal["none", "gradients", "all"] = option(
        "Overlap",
        "none",
        "What is sent while passes compute: none; gradients (also weights that are sharded or offloaded); all (also the"
        " gathering of updated weights, beside the next step's first forward pass).",
        searched=True,
        tried=("none", "gradients"),
    )
    cuda_graphs: bool = option(
        "Overlap",
        False,
        "Record the kernels of layers once and start them as one graph, where the machine says what the host needs to start one.",
        simulated_only=True,
    )
    routing: str | None = option(
        "Network",
        None,
        "How the fabric chooses among several paths; each fabric has some of these (athanor list fabrics).",
        form="ROUTING",
        names="routings",
        otherwise="the machine's own",
        inference=True,
    )
    depth: Literal["auto", "bound", "links", "fluid", "message"] = option(
        "Network",
        "auto",
        "How finely the network is simulated: bound (each exchange alone: no step is shorter), links (the most loaded link),"
        " fluid (all flows share links), message (each message by itself), or auto (fluid, or links where many ranks differ).",
        fixable=False,
        inference=True,
    )
    jitter: float = option(
        "Noise and steps",
        0.0,
        "Standard deviation of each operation's time on each node, relative to the time.",
        least=0,
        less=1,
        fixable=False,
    )
    speed_spread: float = option(
        "Noise and steps",
        0.0,
        "Standard deviation of the nodes' speeds, relative to the speed.",
        least=0,
        less=1,
        fixable=False,
    )
    slow_nodes: str = option(
        "Noise and steps",
        "none",
        "Nodes, counted from 0, that compute slower than the others, and how many times as long they take: 3:1.2,7:1.5.",
        form="NODE:FACTOR,...",
        fixable=False,
    )
    slow_links: str = option(
        "Noise and steps",
        "none",
        "Nodes, counted from 0, whose network cards are slower than the others', and the share of their rate that is left:"
        " 3:0.5,7:0.25.",
        form="NODE:SHARE,...",
        fixable=False,
        simulated_only=True,
    )
    steps: int = option("Noise and steps", 1, "Training steps, one after another.", more=0, fixable=False)
    seed: int = option(
        "Noise and steps", 0, "Seed of all that is drawn: routing, jitter and speeds.", least=0, inference=True
    )

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
        plan = cls(**found)
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
        return _by_node(
            "--slow-nodes", self.slow_nodes, "NODE:FACTOR, a node from 0 on and a factor above 0: 3:1.2", inf
        )

    @property
    def shares_of_links(self) -> dict[int, float]:
        """The share of their rate that the network cards of named nodes have."""
        return _by_node(
            "--slow-links", self.slow_links, "NODE:SHARE, a node from 0 on and a share of (0, 1]: 3:0.5", 1.0
        )

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


def _by_node(flag: str, text: str, needed: str, most: float) -> dict[int, float]:
    """Numbers above 0, up to ``most``, by node; raises :class:`InputError` that says what is ``needed``."""
    found: dict[int, float] = {}
    for part in [] if text == "none" else text.split(","):
        name, _, value = (each.strip() for each in part.partition(":"))
        node = int(name) if name.isdecimal() else -1
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if node < 0 or not 0 < number <= most or number == inf:
            raise InputError(f"{flag} {part}: write {needed}")
        if node in found:
            raise InputError(f"{flag} {text}: node {node} is named twice")
        found[node] = number
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
