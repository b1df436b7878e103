"""A job configuration of torchtitan (TOML) as a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....workloads.plan.expert_axes import folded
from ....workloads.plan.run_file import RunFile
from ..kinds import Asked, Importer, Makes
from ..reading.keys import Keys
from ..reading.trees import read_toml_table

FLAVORS = {
    ("llama3", "8B"): "llama3-8b",
    ("llama3", "70B"): "llama3-70b",
    ("llama3", "405B"): "llama3-405b",
    ("deepseek_v3", "16B"): "deepseek-v2-lite",
    ("deepseek_v3", "671B"): "deepseek-v3",
    ("llama4", "17bx128e"): "llama4-maverick",
    ("qwen3", "32B"): "qwen3-32b",
    ("qwen3", "30B-A3B"): "qwen3-30b-a3b",
    ("qwen3", "235B-A22B"): "qwen3-235b-a22b",
    ("gpt_oss", "20b"): "gpt-oss-20b",
    ("gpt_oss", "120b"): "gpt-oss-120b",
}
"""Models of torchtitan that the catalogue has."""

SCHEDULES = {
    "1F1B": "1f1b",
    "GPipe": "gpipe",
    "Interleaved1F1B": "interleaved",
    "ZBVZeroBubble": "zb-v",
    "DualPipeV": "dualpipe-v",
}

BESIDE = (
    *(
        "job",
        "profiling",
        "metrics",
        "lr_scheduler",
        "checkpoint",
        "comm",
        "memory_estimation",
        "fault_tolerance",
        "debug",
    ),
    *("experimental", "validation", "float8", "mx", "quantize", "deterministic", "compile", "model_converters"),
)
"""Tables that say nothing of a step, or are read by themselves."""


def read_torchtitan(path: str | Path, asked: Asked | None = None) -> RunFile:
    """The run file of a job; ``asked.defined`` may have ``world_size``, from which what is -1 follows.

    Raises :class:`InputError` with the file and the key that is missing or cannot be carried.
    """
    asked, file = asked or Asked(), Path(path)
    keys = Keys(read_toml_table(file), str(file), aside=frozenset(asked.ignore))
    keys.leave_out(asked.ignore)
    keys.free(*BESIDE)
    model = keys.table("model", default={})
    model.free("hf_assets_path", "tokenizer_path", "converters", "print_after_conversion", "norm_type", "use_flex_attn")
    named = asked.model or _model(model)
    model.free("name", "flavor", "converters")
    plan: dict[str, Any] = {}
    training, parallel = keys.table("training", default={}), keys.table("parallelism", default={})
    training.free(
        "steps",
        "dataset",
        "dataset_path",
        "max_norm",
        "seed",
        "deterministic",
        "gc_freq",
        "gc_debug",
        "enable_cpu_offload",
    )
    training.free(
        "data_parallel_replicate_degree",
        "data_parallel_shard_degree",
        "tensor_parallel_degree",
        "dataloader",
        "debug_moe_force_load_balance",
    )
    _mesh(training, parallel, asked, plan)
    _step(training, plan, _converters(model, keys))
    _memory(keys, training, plan)
    keys.finish("a run file")
    return RunFile(file, machine=asked.machine, model=named, plan=plan)


class TorchtitanJob(Importer):
    """torchtitan's TOML: a job as a run file."""

    makes: ClassVar[Makes] = "run file"

    def read(self, path: Path, asked: Asked) -> RunFile:
        """The run file."""
        return read_torchtitan(path, asked)


def _model(model: Keys) -> str:
    """The catalogue's name of a model and its flavor."""
    name, flavor = model.text("name"), model.text("flavor")
    if (name, flavor) not in FLAVORS:
        known = ", ".join(f"{one} {other}" for one, other in FLAVORS)
        raise model.wrong("flavor", f"of {name} is none of the catalogue ({known}); --model names one")
    return FLAVORS[name, flavor]


def _converters(model: Keys, keys: Keys) -> bool:
    """Whether products are in eight bits."""
    listed = [str(each) for each in model.items("converters", default=[])]
    eight = [each for each in listed if "float8" in each or each == "mx"]
    if other := [each for each in listed if each not in eight]:
        raise model.wrong("converters", f"{other[0]} cannot be carried")
    return bool(eight)


def _mesh(training: Keys, parallel: Keys, asked: Asked, plan: dict[str, Any]) -> None:
    """Ranks along each axis. Experts lie inside dp and cp; one degree of data parallelism may follow from the others."""

    def degree(*names: str, default: int) -> int:
        inside = parallel if any(name in parallel for name in names) else training
        return int(inside.whole(*names, default=default, least=-1))

    parallel.free(
        "fsdp_reshard_after_forward", "disable_loss_parallel", "enable_compiled_autograd", "module_fqns_per_model_part"
    )
    parallel.free(
        "pipeline_parallel_split_points", "context_parallel_rotate_method", "pipeline_parallel_microbatch_size"
    )
    parallel.free(
        "pipeline_parallel_first_stage_less_layers", "pipeline_parallel_last_stage_less_layers", "spmd_backend"
    )
    tp = degree("tensor_parallel_degree", default=1)
    pp, cp = degree("pipeline_parallel_degree", default=1), degree("context_parallel_degree", default=1)
    ep, etp = degree("expert_parallel_degree", default=1), degree("expert_tensor_parallel_degree", default=tp)
    replicate, shard = (
        degree("data_parallel_replicate_degree", default=1),
        degree("data_parallel_shard_degree", default=-1),
    )
    if min(tp, pp, cp, ep, replicate) < 1:
        raise InputError(f"{parallel.source}: parallelism: only data_parallel_shard_degree may be -1")
    if shard == -1:
        ranks = Keys(asked.defined, "--define").whole("world_size", default=None)
        if ranks is None:
            raise InputError(
                f"{parallel.source}: data_parallel_shard_degree is -1: follows from all ranks; --define world_size=N"
            )
        shard, rest = divmod(ranks, replicate * tp * pp * cp)
        if rest or not shard:
            raise InputError(
                f"--define world_size={ranks}: is no multiple of {replicate * tp * pp * cp}, dp x tp x pp x cp"
            )
    own = 1
    if ep > 1:  # it borrows ranks of cp and of tp, then those that shard (parallel_dims.py)
        if etp not in (1, tp):
            raise parallel.wrong("expert_tensor_parallel_degree", f"must be 1 or tensor_parallel_degree, {tp}")
        try:
            way = folded(ep, etp, tp, cp)
        except ValueError as reason:
            raise parallel.wrong("expert_parallel_degree", str(reason)) from None
        own = way.own
        plan |= way.options(tp, cp)
    if shard % own:
        raise parallel.wrong("expert_parallel_degree", f"does not divide the {shard} ranks that shard")
    sizes = {"pp": pp, "dp": replicate, "fsdp": shard // own, "ep": own, "cp": cp, "tp": tp}
    plan["mesh"] = {name: size for name, size in sizes.items() if size > 1} or {"dp": 1}
    plan["zero"] = "3" if shard > 1 else "0"
    plan["overlap"] = "gradients"
    if tp > 1:
        plan["sequence_parallel"] = True
        if parallel.truth("enable_async_tensor_parallel", default=False):
            plan["tensor_overlap"] = True
    parallel.free("enable_async_tensor_parallel")
    schedule = parallel.text("pipeline_parallel_schedule", default="1F1B")
    layers = parallel.whole("pipeline_parallel_layers_per_stage", default=None)
    if pp > 1:
        if schedule not in SCHEDULES:
            raise parallel.wrong("pipeline_parallel_schedule", f"no such schedule here; can be {', '.join(SCHEDULES)}")
        plan["pipeline"] = SCHEDULES[schedule]
        if plan["pipeline"] in ("interleaved", "zb-v", "dualpipe-v"):
            plan["chunks"] = 2
        if layers is not None:
            raise parallel.wrong(
                "pipeline_parallel_layers_per_stage",
                "chunks of a stage cannot be counted without the model; --ignore it",
            )


def _step(training: Keys, plan: dict[str, Any], eight: bool) -> None:
    """Batch and formats."""
    micro = training.whole("local_batch_size", "batch_size", default=8)
    whole = training.whole("global_batch_size", default=-1, least=-1)
    mesh = plan["mesh"]
    replicas = mesh.get("dp", 1) * mesh.get("fsdp", 1) * mesh.get("ep", 1)
    plan |= {
        "global_batch": whole if whole > 0 else micro * replicas,
        "seq_len": training.whole("seq_len", default=2048),
    }
    plan["micro_batch"] = 1 if mesh.get("pp", 1) > 1 else micro
    weights = training.one_of("mixed_precision_param", "bfloat16", "float32", default="bfloat16")
    sums = training.one_of("mixed_precision_reduce", "float32", default="float32")
    plan["precision"] = "fp8" if eight else "bf16" if weights == "bfloat16" else "O0"
    plan["gradients"] = "fp32" if sums == "float32" else "bf16"


def _memory(keys: Keys, training: Keys, plan: dict[str, Any]) -> None:
    """Recomputation, offload, attention, and the optimizer."""
    again = keys.table("activation_checkpoint", default={})
    again.free(
        "early_stop",
        "per_op_sac_force_recompute_mm_shapes_by_fqns",
        "preserve_rng_state",
        "determinism_check",
        "debug",
        "memory_budget",
        "visualize_memory_budget_pareto",
    )
    mode = again.one_of("mode", "none", "selective", "full", default="selective")
    option = str(again.raw("selective_ac_option", default="2"))
    if mode == "full":
        plan["recompute"] = "full"
    elif mode == "selective":
        if option == "op":
            plan["recompute"] = "products"
        elif option.isdecimal() and int(option) > 0:
            plan |= (
                {"recompute": "full", "recompute_layers": f"every:{option}"}
                if int(option) > 1
                else {"recompute": "full"}
            )
        else:
            raise again.wrong("selective_ac_option", "must be op or every so many layers")
    if training.truth("enable_cpu_offload", default=False):
        plan["offload"] = "optimizer,parameters"
    plan["attention"] = "fused"
    optimizer = keys.table("optimizer", default={})
    optimizer.free(
        "lr", "eps", "beta1", "beta2", "weight_decay", "implementation", "early_step_in_backward", "fused", "foreach"
    )
    plan["optimizer"] = str(optimizer.one_of("name", "Adam", "AdamW", default="AdamW")).lower()
