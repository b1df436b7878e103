"""The flags of Megatron-LM that a setting needs: its model, its mesh and its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ....hardware.errors import InputError
from ....workloads.model.layers import ATTENTION
from ....workloads.plan.setting import Setting


def megatron_flags(setting: Setting, tell: Callable[[str], None]) -> list[str]:
    """``--flag value``, one an item; raises :class:`InputError` with the key that Megatron-LM has no flag for."""
    return [*_model(setting, tell), *_mesh(setting), *_batch(setting), *_plan(setting)]


def _refuse(setting: Setting, key: str, value: Any) -> InputError:
    return InputError(f"{setting.model.name}: {key} is {value}: Megatron-LM has no flag for it")


def _model(setting: Setting, tell: Callable[[str], None]) -> Iterator[str]:
    model = setting.model
    for key, wrong in (
        ("encoder_layers", model.encoder_layers > 0),
        ("mixers", {*model.pattern} != {ATTENTION}),
        ("causal", not model.causal),
        ("patches", model.patches > 0),
        ("dense_beside", model.dense_beside > 0),
        ("gated_attention", model.gated_attention),
        ("query_key_norm", model.query_key_norm == "all"),
        ("norm", model.norm == "layer-scale"),
    ):
        if wrong:
            raise _refuse(setting, key, getattr(model, key))
    biases = {*model.biases}
    if biases - {"expert"} not in ({"qkv", "out", "ffn"}, {"qkv"}, set()):
        raise _refuse(setting, "biases", ", ".join(model.biases))
    yield f"--num-layers {model.layers}"
    yield f"--hidden-size {model.hidden}"
    yield f"--num-attention-heads {model.heads}"
    yield f"--ffn-hidden-size {model.ffn_hidden}"
    if model.latent:
        at = model.latent
        yield "--multi-latent-attention"
        if at.query_rank is not None:
            yield f"--q-lora-rank {at.query_rank}"
        yield f"--kv-lora-rank {at.key_value_rank}"
        yield f"--qk-head-dim {at.plain}"
        yield f"--qk-pos-emb-head-dim {at.rotary}"
        yield f"--v-head-dim {at.value}"
    else:
        if model.key_value_heads != model.heads:
            yield "--group-query-attention"
            yield f"--num-query-groups {model.key_value_heads}"
        if model.head_size is not None:
            yield f"--kv-channels {model.head_size}"
    if model.query_key_norm == "head":
        yield "--qk-layernorm"
    yield f"--max-position-embeddings {model.positions or model.seq_len}"
    if not model.positions:
        yield "--position-embedding-type rope"
    yield f"--normalization {'RMSNorm' if model.norm == 'rms' else 'LayerNorm'}"
    if model.gated:
        yield "--swiglu"
    if not biases & {"out", "ffn"}:
        yield "--disable-bias-linear"
    if biases - {"expert"} == {"qkv"}:
        yield "--add-qkv-bias"
    if not model.tied:
        yield "--untie-embeddings-and-output-weights"
    if not model.dropout:
        yield "--hidden-dropout 0"
        yield "--attention-dropout 0"
    tp = setting.mesh.size("tp")
    yield f"--vocab-size {model.vocabulary}"
    divisor = next(size for size in (128, 64, 32, 16, 8, 4, 2, 1) if model.vocabulary % (size * tp) == 0 or size == 1)
    if divisor != 128:
        yield f"--make-vocab-size-divisible-by {divisor}"
    if model.vocabulary % (divisor * tp):
        tell(f"{model.vocabulary:,} words are padded to a multiple of tp = {tp} by Megatron-LM")
    if model.further_tokens:
        yield f"--mtp-num-layers {model.further_tokens}"
    if model.experts:
        yield from _experts(setting)


def _experts(setting: Setting) -> Iterator[str]:
    model = setting.model
    yield f"--num-experts {model.experts}"
    yield f"--moe-router-topk {setting.top_k}"
    yield f"--moe-ffn-hidden-size {model.expert_width}"
    if model.dense_first:
        yield f'--moe-layer-freq "([0]*{model.dense_first}+[1]*{model.layers - model.dense_first})"'
    if model.moe_every > 1:
        raise _refuse(setting, "moe_every", model.moe_every)
    if model.shared_experts:
        yield f"--moe-shared-expert-intermediate-size {model.shared_experts * model.expert_width}"
    name, _, factor = setting.plan.balancer.partition(":")
    if name == "capacity":
        yield f"--moe-expert-capacity-factor {factor}"
    yield "--moe-token-dispatcher-type alltoall"


def _mesh(setting: Setting) -> Iterator[str]:
    mesh, plan = setting.mesh, setting.plan
    sizes = {axis: mesh.size(axis) for axis in ("tp", "pp", "cp", "ep")}
    if "row" in mesh.axes:
        raise _refuse(setting, "plan.tensor", plan.tensor)
    yield f"--tensor-model-parallel-size {sizes['tp']}"
    yield f"--pipeline-model-parallel-size {sizes['pp']}"
    if sizes["cp"] > 1:
        yield f"--context-parallel-size {sizes['cp']}"
    if setting.model.experts:
        yield f"--expert-model-parallel-size {mesh.size(*setting.expert_axes)}"
        if sizes["tp"] > 1:
            yield f"--expert-tensor-parallel-size {mesh.size(*setting.expert_cut)}"
    yield f"# on {mesh.ranks} accelerators; world_size is that of the launcher"
    if sizes["pp"] > 1:
        if plan.pipeline == "interleaved":
            each, rest = divmod(setting.model.layers, sizes["pp"] * plan.chunks)
            if rest:
                yield f"--num-virtual-stages-per-pipeline-rank {plan.chunks}"
            else:
                yield f"--num-layers-per-virtual-pipeline-stage {each}"
        elif plan.pipeline != "1f1b":
            raise _refuse(setting, "plan.pipeline", plan.pipeline)
        if plan.stage_layers == "ends":
            yield "--account-for-embedding-in-pipeline-split"
            yield "--account-for-loss-in-pipeline-split"
        elif plan.stage_layers != "even":
            counts = [int(each) for each in plan.stage_layers.split(",")]
            if len({*counts[1:-1]}) > 1:
                raise _refuse(setting, "plan.stage_layers", plan.stage_layers)
            yield f"--decoder-first-pipeline-num-layers {counts[0]}"
            yield f"--decoder-last-pipeline-num-layers {counts[-1]}"


def _batch(setting: Setting) -> Iterator[str]:
    batch = setting.batch
    micro, rest = divmod(batch.micro_tokens, batch.seq_len)
    if rest or not micro:
        raise _refuse(setting, "plan.micro_batch", f"{batch.micro_tokens} tokens")
    yield f"--seq-length {batch.seq_len}"
    yield f"--micro-batch-size {micro}"
    yield f"--global-batch-size {batch.tokens // batch.seq_len * setting.mesh.replicas}"


def _plan(setting: Setting) -> Iterator[str]:
    plan, tp = setting.plan, setting.mesh.size("tp")
    formats = {"bf16": ["--bf16"], "O2": ["--fp16"], "fp8": ["--bf16", "--fp8-format hybrid"], "O0": []}
    stages = {"0": [], "1": ["--use-distributed-optimizer"], "3": ["--use-torch-fsdp2"]}
    for key, value, known in (("precision", plan.precision, formats), ("zero", plan.zero, stages)):
        if value not in known:
            raise _refuse(setting, f"plan.{key}", value)
        yield from known[value]
    if plan.gradients == "fp32":
        yield "--accumulate-allreduce-grads-in-fp32"
    elif plan.gradients == "bf16":
        yield "--grad-reduce-in-bf16"
    if plan.moments not in (None, "fp32"):
        yield f"--exp-avg-dtype {plan.moments}"
        yield f"--exp-avg-sq-dtype {plan.moments}"
    if plan.optimizer not in ("adam", "adamw", "sgd", "muon"):
        raise _refuse(setting, "plan.optimizer", plan.optimizer)
    yield f"--optimizer {plan.optimizer.removesuffix('w')}"
    if tp > 1 and plan.sequence_parallel:
        yield "--sequence-parallel"
    if tp > 1 and plan.tensor_overlap:
        yield "--tp-comm-overlap"
    yield from {
        "none": [],
        "gradients": ["--overlap-grad-reduce"],
        "all": ["--overlap-grad-reduce", "--overlap-param-gather"],
    }[plan.overlap]
    yield from _recomputation(setting)
    for what, share in plan.offload_shares.items():
        if what != "optimizer":
            raise _refuse(setting, "plan.offload", plan.offload)
        yield "--optimizer-cpu-offload"
        if share < 1:
            yield f"--optimizer-offload-fraction {share:g}"
    if plan.attention == "unfused":
        yield "--attention-backend unfused"
    if plan.loss == "fused":
        yield "--cross-entropy-loss-fusion"
    if plan.cuda_graphs:
        yield "--enable-cuda-graph"


def _recomputation(setting: Setting) -> Iterator[str]:
    kind, _, modules = setting.plan.recompute.partition(":")
    which, _, count = setting.plan.recompute_layers.partition(":")
    if kind == "none":
        return
    if kind == "selective":
        yield "--recompute-granularity selective"
    elif kind == "modules":
        yield "--recompute-granularity selective"
        yield f"--recompute-modules {modules.replace('+', ' ')}"
    elif kind == "full" and which in ("all", "first"):
        yield "--recompute-granularity full"
        yield f"--recompute-method {'uniform' if which == 'all' else 'block'}"
        yield f"--recompute-num-layers {count or 1}"
        return
    else:
        raise _refuse(setting, "plan.recompute", setting.plan.recompute)
    if which != "all":
        raise _refuse(setting, "plan.recompute_layers", setting.plan.recompute_layers)
