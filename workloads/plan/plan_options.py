"""The options of a plan as types: made by `make pages` from the fields of Plan, not by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict


class PlanOptions(TypedDict, total=False):
    """Options of a plan, as ``athanor.simulate()`` and the like take them; None is the same as leaving one out."""

    # Mesh and placement
    mesh: str | Mapping[str, int] | None
    """How many ranks lie along each axis of parallelism, outermost axis first.  [default: the model's plan]"""
    placement: str | Mapping[str, str] | None
    """Where ranks live: a rule by name, the order in which axes fill the nodes (block:tp,dp), or the level of the
    machine that each axis lies on (AXIS=LEVEL,... of core_group, node, supernode, joined by +).  [default: auto]"""
    ranks_per_node: int | None
    """Ranks that share a node; must divide its core groups.  [above 0; default: one for each accelerator, else as
    few as hold the mesh]"""
    nodes_per_supernode: int | None
    """Nodes to use of each supernode; the others stay idle.  [above 0; default: all]"""

    # Batch
    tokens_per_rank: int | None
    """Size of a step as tokens of each data-parallel rank.  [tokens; above 0; default: the machine's
    tokens_per_node]"""
    global_batch: int | None
    """Size of a step as sequences of all ranks together, instead of --tokens-per-rank.  [sequences; above 0;
    default: from --tokens-per-rank]"""
    micro_batch: int | None
    """Sequences that a data-parallel rank computes at once; a step runs through as many micro-batches as it takes.
    [sequences; above 0; default: 1 with pipeline stages, else what the machine's tokens_per_node holds]"""
    seq_len: int | None
    """Length of a sequence.  [tokens; above 0; default: the model's own]"""
    document_lengths: str | None
    """Lengths of the documents that are packed into a sequence, over and over until it is full, such as 2048 or
    512,1536: tokens attend to their own document alone.  [default: a sequence is one document]"""

    # Precision and optimizer
    precision: str | None
    """Number formats of weights, products, gradients and update: a policy, or a schedule over iterations such as
    O0:100,layerwise.  [default: bf16, O2 or O0: the first that the machine's core groups have]"""
    gradients: Literal["fp32", "bf16", "fp16"] | None
    """Number format of gradients, which are kept, added up and reduced in it.  [default: the policy's]"""
    moments: Literal["fp32", "bf16", "fp16", "fp8"] | None
    """Number format of the optimizer's moments.  [default: the policy's]"""
    activations: Literal["fp8"] | None
    """Number format in which inputs of activation functions, of FFN and experts, wait for the backward pass
    (DeepSeek-V3: those of SwiGLU in eight bits).  [default: that of products' results]"""
    optimizer: str | None
    """What updates weights, with hyper-parameters if you like (sgd:momentum=0.95,learning_rate=0.1), or a class of
    yours as module:Class.  [default: adam]"""

    # Experts
    top_k: int | None
    """Experts that each token is sent to.  [above 0; default: the model's own]"""
    router: str | None
    """How popular the experts are: uniform, zipf:S (Zipf's law with exponent S), table:NAME or table:FILE.csv
    (recorded popularity), trace:FILE (recorded tokens of each step, layer and expert, replayed), or a class of
    yours as module:Class.  [default: uniform]"""
    drift: float | None
    """How much loads of experts change from one step to the next: 0 keeps them, 1 draws them anew, in between they
    correlate by 1 - X.  [from 0 to 1; default: 0.0]"""
    balancer: str | None
    """What evens out the experts' loads: none, capacity:F (drop what exceeds F times the mean), padded:F (also send
    and compute empty places), swipe, even, expert-choice (experts pick tokens), eplb:R (R replicas of popular
    experts), shadow (popular experts go to all ranks), or a class of yours as module:Class.  [default: none]"""
    expert_tensor: str | None
    """With tp in the mesh: split every expert over the ranks of tp, keep experts whole and spread them over tp too,
    or split each over so many ranks of tp and spread experts over groups of these.  [default: split]"""
    expert_context: str | None
    """With cp in the mesh: keep a copy of the experts on every rank of cp, spread them over cp too, or over so many
    ranks of cp, with copies in each such group.  [default: copies]"""
    expert_parallel: int | None
    """Ranks that share the experts of a layer, counted over dp x cp x tp as Megatron does, in place of ep in the
    mesh: over tp first (where --expert-tensor leaves room), then over cp, then over dp.  [above 0; default: as ep
    says]"""
    prototypes: int | None
    """Divide the experts of a layer into this many groups; each token goes to its best expert of every group (M6-T).
    [above 0; default: no groups]"""
    all_to_all: str | None
    """Algorithm of the exchange that brings tokens to experts and back.  [default: linear]"""
    dispatch: Literal["copies", "node-limited"] | None
    """How tokens go to experts of other nodes: a copy for each expert, or once for each node, where it is handed on
    (DeepEP).  [default: copies]"""
    route_nodes: int | None
    """Most nodes that the experts of a token lie on, with --dispatch node-limited.  [above 0; default: as many as
    its choices happen to lie on]"""

    # Tensor and sequence parallelism
    tensor: Literal["1d", "2d"] | None
    """How the ranks of tp cut matrices: 1d, by columns and rows (Megatron-LM), or 2d, on a square grid (SUMMA).
    [default: 1d]"""
    sequence_parallel: bool | None
    """Also divide norms, dropout and residuals over tp, by tokens.  [default: no]"""
    tensor_overlap: bool | None
    """Run the exchanges over tp while the products before and after them compute.  [default: no]"""
    tensor_async: bool | None
    """Backward, add up gradients of inputs over tp beside the products that make gradients of weights, and with
    --sequence-parallel gather inputs again beside those of inputs (Megatron-LM from 3.0 on).  [default: no]"""

    # Pipeline
    pipeline: str | None
    """Order of forward and backward passes on the pipeline stages: by name, or a class of yours as module:Class.
    [default: 1f1b]"""
    chunks: int | None
    """Model chunks (virtual stages) on each pipeline stage, for --pipeline interleaved; 2 for zb-v and dualpipe-v.
    [above 0; default: 1]"""
    stage_layers: str | None
    """How layers are divided over stages: even, ends (embedding and output layer count as one layer each), or the
    number of each stage as N,N,....  [default: even]"""
    scatter_gather: bool | None
    """Between stages each rank of tp sends only its 1/tp of the activations; the receiving ranks gather them
    (Megatron-LM).  [default: no]"""

    # Sharding and offload
    zero: str | None
    """What data-parallel ranks shard instead of replicating (ZeRO): 0 nothing, 1 optimizer state, 2 gradients too, 3
    weights too, shard-grad-op (3 whose weights stay whole until the backward pass), ++ (ZeRO++: 3 with 8-bit
    weights and 4-bit gradients), or hierarchical (1, reduced inside supernodes first, then across: BaGuaLu).
    [default: 0]"""
    offload: str | None
    """What lies in the host's memory: optimizer, parameters, activations, experts, joined by commas, or a share of
    one such as experts:0.5.  [default: none]"""
    offload_delay: bool | None
    """Let the host update weights while the next step runs, which then uses weights one update old.  [default: no]"""

    # Memory and recomputation
    recompute: str | None
    """What the backward pass computes again instead of keeping: none, selective (scores and softmax of attention),
    products (also every second matrix product), full (whole layers), or modules:NAME+NAME+... as Megatron-LM
    names them: core_attn, layernorm, mla_up_proj, mlp, moe, moe_act, shared_experts.  [default: none]"""
    recompute_layers: str | None
    """Of which layers: all, every:N (every N-th of the model), or first:N (the first N of each stage, or of each
    chunk: Megatron-LM's block method).  [default: all]"""
    attention: str | None
    """Attention as separate operations, or as one fused kernel that never writes its scores: one by name, or fused,
    the fastest that the machine has.  [default: unfused]"""
    loss: Literal["unfused", "fused"] | None
    """Cross-entropy with a copy of the logits in single precision, or as one fused kernel that leaves gradients in
    the logits' place (Transformer Engine's, Liger's).  [default: unfused]"""
    framework: str | None
    """Whose memory, and passes around update and loss, are counted beside formulas, on machines whose file has
    [core_group.framework]: megatron[:RELEASE of Transformer Engine], deepspeed, fsdp (PyTorch's, single-precision
    shards), or a class of yours as module:Class.  [default: where the machine has one: fsdp with --zero 3 and ++,
    else megatron]"""
    accounting: Literal["apex-o2", "bagualu", "fp32"] | None
    """How bytes of memory are counted: apex-o2, what the precision's formats take; bagualu, the same without the
    output layer's inputs; fp32, 24 bytes a parameter.  [default: apex-o2]"""

    # Overlap
    overlap: Literal["none", "gradients", "all"] | None
    """What is sent while passes compute: none; gradients (also weights that are sharded or offloaded); all (also the
    gathering of updated weights, beside the next step's first forward pass).  [default: none]"""
    cuda_graphs: bool | None
    """Record the kernels of layers once and start them as one graph, where the machine says what the host needs to
    start one.  [default: no]"""

    # Network
    routing: str | None
    """How the fabric chooses among several paths; each fabric has some of these (athanor list fabrics).  [default:
    the machine's own]"""
    depth: Literal["auto", "bound", "links", "fluid", "message"] | None
    """How finely the network is simulated: bound (each exchange alone: no step is shorter), links (the most loaded
    link), fluid (all flows share links), message (each message by itself), or auto (fluid, or links where many
    ranks differ).  [default: auto]"""

    # Noise and steps
    jitter: float | None
    """Standard deviation of each operation's time on each node, relative to the time.  [from 0 to below 1; default:
    0.0]"""
    speed_spread: float | None
    """Standard deviation of the nodes' speeds, relative to the speed.  [from 0 to below 1; default: 0.0]"""
    slow_nodes: str | None
    """Nodes, counted from 0, that compute slower than the others, and how many times as long they take: 3:1.2,7:1.5.
    [default: none]"""
    slow_links: str | None
    """Nodes, counted from 0, whose network cards are slower than the others', and the share of their rate that is
    left: 3:0.5,7:0.25.  [default: none]"""
    slow_uplinks: str | None
    """Supernodes (leaf switches), counted from 0, whose links to the others are slower, and the share of their rate
    that is left: 2:0.875 where one of eight cables has failed.  [default: none]"""
    steps: int | None
    """Training steps, one after another.  [above 0; default: 1]"""
    seed: int | None
    """Seed of all that is drawn: routing, jitter and speeds.  [from 0 on; default: 0]"""
