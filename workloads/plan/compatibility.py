"""What goes with what: strategies that exclude each other, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...hardware.machine import Machine
from ..mesh.axes import CONTEXT, SHARDED, TENSOR, with_parts
from ..mesh.mesh import Mesh
from ..model.model import Model
from ..optimizers import Adam
from ..pipelines import find_pipeline
from ..routing.balancers import Balancer, Padded
from .expert_axes import TENSOR_WAYS, expert_axes
from .plan import Plan


@dataclass(frozen=True)
class Combination:
    """What a rule looks at: all choices, whatever the batch that is to be trained with them."""

    model: Model
    plan: Plan
    mesh: Mesh
    machine: Machine

    def has(self, *axes: str) -> bool:
        """Whether the mesh has more than one rank along any of these axes."""
        return any(self.mesh.size(axis) > 1 for axis in axes)

    @property
    def asynchronous(self) -> bool:
        """Whether there is a pipeline that is never flushed; raises :class:`InputError` for an unknown one."""
        return self.has("pp") and find_pipeline(self.plan.pipeline).asynchronous


@dataclass(frozen=True)
class Rule:
    """Two things that exclude each other: when both are asked for, and why they do not go together."""

    first: str
    second: str
    broken: Callable[[Combination], bool]
    why: str

    def __str__(self) -> str:
        """As errors begin."""
        return f"{self.first} with {self.second}"


def _fixed_shapes(balancer: Balancer) -> bool:
    """Whether every expert's products have one shape, whatever tokens choose."""
    return balancer.level or isinstance(balancer, Padded)


def dealt_over(chosen: Combination, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of these axes over which a model's experts are dealt."""
    return tuple(axis for axis in expert_axes(chosen.plan, chosen.mesh) if axis in axes)


CUT = " or ".join(CONTEXT)
"""How errors name the axes that cut sequences."""

RULES = (
    Rule(
        "--tensor 2d",
        "--sequence-parallel",
        lambda g: g.plan.tensor == "2d" and g.plan.sequence_parallel,
        "the grid already cuts tokens and hidden elements",
    ),
    Rule("--tensor 2d", CUT, lambda g: g.plan.tensor == "2d" and g.has(*CONTEXT), "both cut sequences"),
    Rule(
        "--tensor 2d",
        "experts",
        lambda g: g.plan.tensor == "2d" and bool(g.model.experts),
        "SUMMA is for products that all ranks of the grid share",
    ),
    Rule(
        "--tensor 2d",
        "--zero 3 or ++",
        lambda g: g.plan.tensor == "2d" and g.plan.sharding.shards_weights,
        "the grid already cuts the weights; --zero 1 and 2 are allowed",
    ),
    Rule(
        "--sequence-parallel",
        "no tp",
        lambda g: g.plan.sequence_parallel and not g.has("tp", "row"),
        "it cuts what tensor parallelism leaves whole; add tp to the mesh",
    ),
    Rule(
        CUT,
        "an encoder-decoder",
        lambda g: g.has(*CONTEXT) and g.model.encoder_layers > 0,
        "input and output sequences may differ in length",
    ),
    Rule(
        "pp",
        "an encoder-decoder",
        lambda g: g.has("pp") and g.model.encoder_layers > 0,
        "stages would have to pass on two sequences",
    ),
    Rule(
        "pp",
        "--zero 3 or ++",
        lambda g: g.has("pp") and g.plan.sharding.shards_weights,
        "weights would be gathered once for every micro-batch (Narayanan et al. 2021); --zero 1 and 2 are allowed",
    ),
    Rule(
        "pp",
        "--depth message",
        lambda g: g.has("pp") and g.plan.depth == "message",
        "a pipeline is simulated block by block; use fluid or links",
    ),
    Rule(
        "an asynchronous --pipeline",
        "--zero or --overlap",
        lambda g: g.asynchronous and (g.plan.sharding.shards_state or g.plan.overlap != "none"),
        "versions of weights differ from micro-batch to micro-batch; use --zero 0 --overlap none",
    ),
    Rule(
        "an asynchronous --pipeline",
        "--offload of optimizer, parameters or experts",
        lambda g: g.asynchronous and bool(g.plan.offloads & {"optimizer", "parameters", "experts"}),
        "weights change while the pipeline runs; --offload activations is allowed",
    ),
    Rule(
        "--offload optimizer",
        "--zero ++",
        lambda g: "optimizer" in g.plan.offloads and g.plan.sharding.quantises,
        "quantised gradients stay on the accelerators",
    ),
    Rule(
        "--offload optimizer",
        "an --optimizer of whole tensors",
        lambda g: "optimizer" in g.plan.offloads and not g.plan.optimizing.hosted,
        "adafactor, lamb and muon need whole tensors, which are gathered on accelerators; use adam, adamw, sgd or adam8bit",
    ),
    Rule(
        "--accounting fp32",
        "another --optimizer than Adam",
        lambda g: g.plan.accounting == "fp32" and not isinstance(g.plan.optimizing, Adam),
        "8 of its 24 bytes a parameter are Adam's two moments",
    ),
    Rule(
        "--offload experts",
        "no experts",
        lambda g: "experts" in g.plan.offloads and not g.model.experts,
        "the model has no experts",
    ),
    Rule(
        "--offload-delay",
        "no --offload optimizer",
        lambda g: g.plan.offload_delay and "optimizer" not in g.plan.offloads,
        "it delays the update that the host makes",
    ),
    Rule(
        "--zero ++",
        "no fsdp",
        lambda g: g.plan.sharding.keeps_second_shard and not g.has(*SHARDED),
        "the second shard of the weights is spread over fsdp; add fsdp to the mesh, with the ranks of a node",
    ),
    Rule(
        "--recompute products",
        "--attention unfused",
        lambda g: g.plan.recomputation.keeps_products and g.plan.kernel.keeps_scores,
        "it keeps the outputs of the fused kernel; use --attention fused",
    ),
    Rule(
        "--recompute products",
        "experts",
        lambda g: g.plan.recomputation.keeps_products and bool(g.model.experts),
        "which products of experts it would keep is not modelled",
    ),
    Rule(
        "--cuda-graphs",
        "a machine without core_group.launch",
        lambda g: g.plan.cuda_graphs and g.machine.core_group.launch is None,
        "there is no host whose time for starting kernels could be saved",
    ),
    Rule(
        "--cuda-graphs",
        "experts whose loads vary",
        lambda g: (
            g.plan.cuda_graphs
            and bool(g.model.experts)
            and not (g.plan.balancing.level or isinstance(g.plan.balancing, Padded))
        ),
        "a graph repeats kernels of fixed shapes; use --balancer padded, or one that gives every expert as many tokens",
    ),
    Rule(
        "--document-lengths",
        "an encoder",
        lambda g: bool(g.plan.documents) and g.model.encoder_layers > 0,
        "documents of the input and of the output would have lengths of their own",
    ),
    Rule(
        CUT,
        "recurrent layers",
        lambda g: g.has(*CONTEXT) and bool(g.model.recurrent),
        "each rank would need the state that the ranks before leave",
    ),
    Rule(
        "--tensor 2d",
        "recurrent layers or further tokens",
        lambda g: g.plan.tensor == "2d" and bool(g.model.recurrent or g.model.further_tokens),
        "SUMMA is for products of attention and FFN",
    ),
    Rule(
        "--recompute products",
        "recurrent layers or further tokens",
        lambda g: g.plan.recomputation.keeps_products and bool(g.model.recurrent or g.model.further_tokens),
        "which of their products it would keep is not modelled",
    ),
    Rule(
        "--recompute modules:mla_up_proj",
        "no latent attention",
        lambda g: g.plan.recomputation.names_module("mla_up_proj") and not g.model.latent,
        "queries, keys and values are not made of narrow ones",
    ),
    Rule(
        "--recompute modules:moe, moe_act or shared_experts",
        "no experts",
        lambda g: (
            any(map(g.plan.recomputation.names_module, ("moe", "moe_act", "shared_experts"))) and not g.model.experts
        ),
        "the model has no experts",
    ),
    Rule(
        "--recompute-layers",
        "--recompute none",
        lambda g: g.plan.recomputed_layers is not None and not g.plan.recomputation.repeats,
        "nothing is worked out again; name a kind",
    ),
    Rule(
        "--dispatch node-limited",
        "no experts",
        lambda g: g.plan.dispatch == "node-limited" and not g.model.experts,
        "the model is dense",
    ),
    Rule(
        "--dispatch node-limited",
        "another --all-to-all than linear",
        lambda g: g.plan.dispatch == "node-limited" and g.plan.all_to_all != "linear",
        "tokens go straight to a rank of each node, and from there to its neighbours",
    ),
    Rule(
        "--route-nodes",
        "--dispatch copies",
        lambda g: g.plan.route_nodes is not None and g.plan.dispatch == "copies",
        "copies travel one by one, however many nodes they go to; use --dispatch node-limited",
    ),
    Rule("ep", "no experts", lambda g: g.has("ep") and not g.model.experts, "the model is dense: use dp"),
    Rule("--prototypes", "no experts", lambda g: bool(g.plan.prototypes) and not g.model.experts, "the model is dense"),
    Rule(
        "--all-to-all bruck",
        "--expert-tensor below tp",
        lambda g: g.plan.all_to_all == "bruck" and g.has(*dealt_over(g, TENSOR)),
        "tokens are exchanged over two axes",
    ),
    Rule(
        "--expert-tensor in ranks",
        "no experts",
        lambda g: g.plan.expert_tensor not in TENSOR_WAYS and not g.model.experts,
        "the model is dense",
    ),
    Rule(
        "--all-to-all bruck",
        "--expert-context spread",
        lambda g: g.plan.all_to_all == "bruck" and g.has(*dealt_over(g, with_parts(CONTEXT))),
        "tokens are exchanged over two axes",
    ),
    Rule(
        "--expert-context spread",
        "no experts",
        lambda g: g.plan.expert_context != "copies" and not g.model.experts,
        "the model is dense",
    ),
)
"""Every exclusion, in the order in which they are looked at; the documentation prints them."""
