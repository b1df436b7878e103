"""Every option of a run, once: its type, choices, default, unit, help and section.

The command line, run files, :class:`~athanor.workloads.plan.plan_options.PlanOptions`, ``docs/cli.md`` and the choices of
``athanor plan`` are made from these fields. :class:`~athanor.workloads.plan.plan.Plan` is what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .option import REQUIRED, option


@dataclass(frozen=True, kw_only=True)
class PlanFields:
    """The options of a run, under the names that the command line gives them; what is None follows from the others."""

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
        " and compute empty places), swipe, even, expert-choice (experts pick tokens), eplb:R (R replicas of popular experts),"
        " shadow (popular experts go to all ranks), or a class of yours as module:Class.",
        form="BALANCER",
        names="balancers",
        inference=True,
    )
    expert_tensor: str = option(
        "Experts",
        "split",
        "With tp in the mesh: split every expert over the ranks of tp, keep experts whole and spread them over tp too, or"
        " split each over so many ranks of tp and spread experts over groups of these.",
        form="WAY|RANKS",
        names="expert-tensors",
        searched=True,
        tried=("split", "whole"),
    )
    expert_context: str = option(
        "Experts",
        "copies",
        "With cp in the mesh: keep a copy of the experts on every rank of cp, spread them over cp too, or over so many ranks"
        " of cp, with copies in each such group.",
        form="WAY|RANKS",
        names="expert-contexts",
    )
    expert_parallel: int | None = option(
        "Experts",
        None,
        "Ranks that share the experts of a layer, counted over dp x cp x tp as Megatron does, in place of ep in the mesh:"
        " over tp first (where --expert-tensor leaves room), then over cp, then over dp.",
        more=0,
        otherwise="as ep says",
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
    tensor_async: bool = option(
        "Tensor and sequence parallelism",
        False,
        "Backward, add up gradients of inputs over tp beside the products that make gradients of weights, and with"
        " --sequence-parallel gather inputs again beside those of inputs (Megatron-LM from 3.0 on).",
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
        "Whose memory, and passes around update and loss, are counted beside formulas, on machines whose file has"
        " [core_group.framework]: megatron[:RELEASE of Transformer Engine], deepspeed, fsdp (PyTorch's, single-precision"
        " shards), or a class of yours as module:Class.",
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
    slow_uplinks: str = option(
        "Noise and steps",
        "none",
        "Supernodes (leaf switches), counted from 0, whose links to the others are slower, and the share of their rate that is"
        " left: 2:0.875 where one of eight cables has failed.",
        form="S:SHARE,...",
        fixable=False,
        simulated_only=True,
    )
    steps: int = option("Noise and steps", 1, "Training steps, one after another.", more=0, fixable=False)
    seed: int = option(
        "Noise and steps", 0, "Seed of all that is drawn: routing, jitter and speeds.", least=0, inference=True
    )
