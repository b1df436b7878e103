"""A launch of Megatron-LM, Megatron-Bridge or NeMo as a run file: its model, its mesh, and the options of its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....workloads.model.model import Model
from ....workloads.plan.expert_axes import folded
from ....workloads.plan.run_file import RunFile
from ..kinds import Asked, Importer, Makes
from ..models.described import described
from ..reading.keys import Keys
from .megatron_arguments import arguments
from .megatron_model import model_fields
from .megatron_unread import UNREAD

TOKENIZERS = {"GPT2BPETokenizer": 50257, "Llama2Tokenizer": 32000, "Llama3Tokenizer": 128256, "TikTokenizer": 131072}
"""Words of tokenizers that always have the same ones."""


def read_megatron(path: str | Path, asked: Asked | None = None) -> RunFile:
    """The run file of a launch script, a list of arguments, a dumped namespace, or YAML of NeMo or Megatron-Bridge.

    ``asked.defined`` has what the file leaves open, such as ``world_size``. Raises :class:`InputError` with the file and the
    argument that is missing or cannot be carried. Of a dumped namespace, which has all arguments that there are, those that are
    not known are told and left out.
    """
    asked, file = asked or Asked(), Path(path)
    found, whole = arguments(file, asked.defined)
    keys = Keys(found, str(file), aside=frozenset(asked.ignore))
    keys.leave_out(asked.ignore)
    keys.free(*(name for name, value in found.items() if value is False or UNREAD.fullmatch(name)))
    plan = _plan(keys, asked)
    if asked.model is None:
        fields = model_fields(keys, _words(keys, plan["mesh"].get("tp", 1)), asked)
        source = f"{file.name}, arguments of Megatron-LM"
        name = asked.name or file.stem.lower().replace("_", "-").replace(" ", "-")
        model: str | Model = described(name, fields, source, str(file))
    else:
        model = asked.model
        model_fields(keys, 1, Asked(), named=True)
        keys.free("padded_vocab_size", "vocab_size", "tokenizer_type", "make_vocab_size_divisible_by")
    left = list(keys.left())
    if whole and left:
        asked.tell(f"{len(left)} arguments of {file} were not read: {', '.join(left[:8])}{', ...' if left[8:] else ''}")
    elif left:
        keys.finish("a run file")
    return RunFile(file, machine=asked.machine, model=model, plan=plan)


class MegatronLaunch(Importer):
    """launches of Megatron-LM: a script, a list or dump of arguments, YAML of NeMo or Megatron-Bridge."""

    makes: ClassVar[Makes] = "run file"

    def read(self, path: Path, asked: Asked) -> RunFile:
        """The run file, with its model."""
        return read_megatron(path, asked)


def _words(keys: Keys, tensor: int) -> int:
    """Rows of the table of words: padded to a multiple that tensor parallelism divides."""
    padded = keys.whole("padded_vocab_size", default=None)
    kind = keys.raw("tokenizer_type", default=None)
    words = keys.whole("vocab_size", default=TOKENIZERS.get(kind) if isinstance(kind, str) else None)
    divisor = keys.whole("make_vocab_size_divisible_by", default=128) * tensor
    if padded is not None:
        return int(padded)
    if words is None:
        raise InputError(
            f"{keys.source}: vocab_size is missing, and {kind or 'no tokenizer_type'} does not say it; --define vocab_size=N"
        )
    return int(-(-words // divisor) * divisor)


def _plan(keys: Keys, asked: Asked) -> dict[str, Any]:
    """The options of the plan."""
    tell = asked.tell
    tp = keys.whole("tensor_model_parallel_size", "model_parallel_size", default=1)
    pp = keys.whole("pipeline_model_parallel_size", default=1)
    cp = keys.whole("context_parallel_size", default=1)
    experts = keys.whole("num_experts", default=None)
    ep = keys.whole("expert_model_parallel_size", default=1)
    etp = keys.whole("expert_tensor_parallel_size", default=tp)
    data = keys.whole("data_parallel_size", default=None)
    ranks = _ranks(keys, None if data is None else data * tp * pp * cp)
    replicas, rest = divmod(ranks, tp * pp * cp)
    if rest:
        raise InputError(f"{keys.source}: {ranks} ranks are no multiple of tp x pp x cp = {tp} x {pp} x {cp}")
    mesh, plan = {"pp": pp}, dict[str, Any]()
    own = 1
    if experts:
        if tp % etp:
            raise keys.wrong("expert_tensor_parallel_size", f"must divide tp = {tp}")
        try:
            way = folded(ep, etp, tp, cp)
        except ValueError as reason:
            raise keys.wrong("expert_model_parallel_size", str(reason)) from None
        own, plan = way.own, plan | way.options(tp, cp)
    if replicas % own:
        raise keys.wrong("expert_model_parallel_size", f"does not divide the {replicas} data-parallel ranks")
    sharded = _sharding(keys, plan)
    mesh["fsdp" if sharded else "dp"] = replicas // own
    mesh |= {"ep": own, "cp": cp, "tp": tp}
    if keys.truth("use_tp_pp_dp_mapping", default=False):
        mesh = {name: mesh[name] for name in mesh if name != "pp" and name not in ("cp", "tp")} | {
            "pp": pp,
            "cp": cp,
            "tp": tp,
        }
    plan["mesh"] = {name: size for name, size in mesh.items() if size > 1} or {"dp": 1}
    length = keys.whole("seq_length", default=None)
    micro = keys.whole("micro_batch_size", default=1)
    plan |= {"global_batch": keys.whole("global_batch_size", default=micro * replicas), "micro_batch": micro}
    if length is not None:
        plan["seq_len"] = length
    if keys.raw("rampup_batch_size", default=None) is not None:
        tell("rampup_batch_size: the run file has the batch that it ends with")
    _formats(keys, plan)
    _pipeline(keys, plan, pp)
    _memory(keys, plan)
    _overlap(keys, plan, tp)
    if experts:
        _dispatch(keys, plan)
    return plan


def _ranks(keys: Keys, told: int | None) -> int:
    """All ranks: as the file says, or nodes times ranks of each."""
    whole = keys.whole("world_size", default=None)
    nodes = keys.whole("nnodes", default=None)
    each = keys.whole("nproc_per_node", default=None)
    keys.free("nnodes", "nproc_per_node")
    ranks = whole or (nodes * each if nodes and each else None) or told
    if ranks is None:
        raise InputError(f"{keys.source}: says not on how many accelerators it runs; --define world_size=N")
    return int(ranks)


def _sharding(keys: Keys, plan: dict[str, Any]) -> bool:
    """ZeRO's stage; whether weights are sharded too."""
    full = keys.truth("use_torch_fsdp2", default=False)
    own = keys.truth("use_megatron_fsdp", "use_custom_fsdp", default=False)
    what = keys.one_of(
        "data_parallel_sharding_strategy", "no_shard", "optim", "optim_grads", "optim_grads_params", default="no_shard"
    )
    stages = {"no_shard": "0", "optim": "1", "optim_grads": "2", "optim_grads_params": "3"}
    stage = "1" if keys.truth("use_distributed_optimizer", default=False) else "0"
    if full or own:
        stage = "3" if full else max(stage, stages[what])
    keys.one_of(
        "num_distributed_optimizer_instances",
        1,
        "1",
        default=1,
        why="optimizers sharded within parts of dp cannot be carried",
    )
    plan["zero"] = stage
    return stage == "3"


def _formats(keys: Keys, plan: dict[str, Any]) -> None:
    """Number formats and the optimizer."""
    mixed = str(keys.raw("precision", default="")).removesuffix("-mixed")
    bf16 = keys.truth("bf16", default=mixed == "bf16")
    half = keys.truth("fp16", default=mixed in ("16", "fp16"))
    eight = keys.raw("fp8_format", default=None)
    keys.one_of("fp4_format", None, default=None, why="products in four bits cannot be carried")
    plan["precision"] = "fp8" if eight not in (None, False, "") else "bf16" if bf16 else "O2" if half else "O0"
    if keys.truth("accumulate_allreduce_grads_in_fp32", "grad_reduce_in_fp32", default=False):
        plan["gradients"] = "fp32"
    elif keys.truth("grad_reduce_in_bf16", default=False):
        plan["gradients"] = "bf16"
    short = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "fp8": "fp8"}
    first = str(keys.raw("exp_avg_dtype", default="fp32")).removeprefix("torch.")
    second = str(keys.raw("exp_avg_sq_dtype", default="fp32")).removeprefix("torch.")
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "uint8": "fp8"}
    first, second = names.get(first, first), names.get(second, second)
    if first != second or first not in short:
        raise keys.wrong(
            "exp_avg_dtype" if "exp_avg_dtype" in keys else "exp_avg_sq_dtype",
            "both moments must have one format",
        )
    if first != "fp32":
        plan["moments"] = first
    plan["optimizer"] = keys.one_of("optimizer", "adam", "sgd", "muon", default="adam")


def _pipeline(keys: Keys, plan: dict[str, Any], stages: int) -> None:
    """Chunks and layers of stages."""
    layers = keys.whole("num_layers", default=None)
    each = keys.whole("num_layers_per_virtual_pipeline_stage", default=None)
    chunks = keys.whole("num_virtual_stages_per_pipeline_rank", default=None)
    first = keys.whole("decoder_first_pipeline_num_layers", default=None)
    last = keys.whole("decoder_last_pipeline_num_layers", default=None)
    ends = keys.truth("account_for_embedding_in_pipeline_split", default=False)
    loss = keys.truth("account_for_loss_in_pipeline_split", default=False)
    layout = keys.raw("pipeline_model_parallel_layout", default=None)
    if layout is not None:
        raise keys.wrong("pipeline_model_parallel_layout", "a layout of stages cannot be carried; write stage_layers")
    if stages == 1:
        return
    if each is not None and layers is not None:
        chunks, rest = divmod(layers, stages * each)
        if rest or not chunks:
            raise keys.wrong(
                "num_layers_per_virtual_pipeline_stage", f"does not divide {layers} layers on {stages} stages"
            )
    plan["pipeline"] = "interleaved" if (chunks or 1) > 1 else "1f1b"
    if (chunks or 1) > 1:
        plan["chunks"] = chunks
    if ends != loss:
        raise keys.wrong(
            "account_for_embedding_in_pipeline_split" if ends else "account_for_loss_in_pipeline_split",
            "embedding and loss can only count as a layer both",
        )
    if ends:
        plan["stage_layers"] = "ends"
    if (first or last) and layers is not None:
        others = stages - (first is not None) - (last is not None)
        between = layers - (first or 0) - (last or 0)
        if not others or between % others or between <= 0:
            raise keys.wrong(
                "decoder_first_pipeline_num_layers" if first else "decoder_last_pipeline_num_layers",
                f"leaves {between} layers for {others} stages between",
            )
        counts = [*([first] if first else []), *[between // others] * others, *([last] if last else [])]
        plan["stage_layers"] = ",".join(map(str, counts))


def _memory(keys: Keys, plan: dict[str, Any]) -> None:
    """Recomputation, offload, attention and loss."""
    if keys.truth("recompute_activations", "checkpoint_activations", default=False):
        plan["recompute"] = "selective"
    grain = keys.one_of("recompute_granularity", "full", "selective", default=None)
    method = keys.one_of("recompute_method", "uniform", "block", default=None)
    count = keys.whole("recompute_num_layers", default=1)
    modules = keys.raw("recompute_modules", default=None)
    if grain == "selective":
        names = [modules] if isinstance(modules, str) else modules
        wanted = [str(each) for each in names] if isinstance(names, list) else ["core_attn"]
        plan["recompute"] = "selective" if wanted == ["core_attn"] else f"modules:{'+'.join(wanted)}"
    elif grain == "full":
        plan["recompute"] = "full"
        if method == "block":
            plan["recompute_layers"] = f"first:{count}"
        elif count > 1:
            raise keys.wrong("recompute_num_layers", "inputs of every so many layers cannot be carried; must be 1")
    keys.truth("distribute_saved_activations", default=False)
    share = keys.number("optimizer_offload_fraction", default=1.0)
    if keys.truth("optimizer_cpu_offload", default=False) and share > 0:
        plan["offload"] = "optimizer" if share >= 1 else f"optimizer:{share:g}"
    keys.one_of(
        "cpu_offloading", None, default=None, why="offload of activations layer by layer cannot be carried; --ignore it"
    )
    backend = keys.one_of(
        "attention_backend",
        "flash",
        "fused",
        "auto",
        "unfused",
        "local",
        "AttnBackend.auto",
        "AttnBackend.flash",
        "AttnBackend.fused",
        default=None,
    )
    local = keys.raw("transformer_impl", default="transformer_engine") == "local"
    flash = keys.truth("use_flash_attn", default=False)
    unfused = backend in ("unfused", "local") or (local and not flash and backend is None)
    plan["attention"] = "unfused" if unfused else "fused"
    if keys.truth("cross_entropy_loss_fusion", default=False):
        plan["loss"] = "fused"
    keys.free("cross_entropy_fusion_impl")


def _overlap(keys: Keys, plan: dict[str, Any], tensor: int) -> None:
    """What is sent beside passes, and how the host starts kernels."""
    gradients = keys.truth("overlap_grad_reduce", default=False)
    weights = keys.truth("overlap_param_gather", default=False)
    plan["overlap"] = "all" if gradients and weights else "gradients" if gradients else "none"
    sequence = keys.truth("sequence_parallel", default=False)
    beside = keys.truth("tp_comm_overlap", default=False)
    if tensor > 1 and sequence:
        plan["sequence_parallel"] = True
    if tensor > 1 and beside:
        plan["tensor_overlap"] = True
    graphs = keys.truth("enable_cuda_graph", "external_cuda_graph", default=False)
    kind = keys.one_of("cuda_graph_impl", "none", "local", "transformer_engine", default="none")
    if graphs or kind != "none":
        plan["cuda_graphs"] = True
    keys.one_of("cp_comm_type", "p2p", default="p2p", why="context parallelism is a ring here")


def _dispatch(keys: Keys, plan: dict[str, Any]) -> None:
    """How tokens go to experts."""
    factor = keys.number("moe_expert_capacity_factor", default=None)
    if factor:
        plan["balancer"] = f"capacity:{factor:g}"
    keys.one_of(
        "moe_token_dispatcher_type", "alltoall", "flex", "alltoall_seq", default="alltoall", why="tokens are gathered"
    )
    keys.one_of("moe_extended_tp", None, default=None)
    keys.free(
        "moe_pad_expert_input_to_capacity", "moe_token_drop_policy", "moe_enable_deepep", "moe_flex_dispatcher_backend"
    )
