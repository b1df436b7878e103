"""DeepSpeed's JSON as a run file: what it shards and offloads, its batch and its formats. Model and mesh are not in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....workloads.plan.run_file import RunFile
from ..kinds import Asked, Importer, Makes
from ..reading.keys import Keys
from ..reading.trees import read_table

FREE = (
    *(
        "gradient_clipping",
        "steps_per_print",
        "wall_clock_breakdown",
        "dump_state",
        "scheduler",
        "seed",
        "prescale_gradients",
    ),
    *("gradient_predivide_factor", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "flops_profiler"),
    *("tensorboard", "wandb", "csv_monitor", "comet", "comms_logger", "monitor_config", "checkpoint", "data_types"),
    *("memory_breakdown", "dataloader_drop_last", "disable_allgather", "communication_data_type", "amp", "autotuning"),
    *(
        "graph_harvesting",
        "compile",
        "elasticity",
        "aio",
        "nebula",
        "use_data_before_expert_parallel",
        "zero_quantized_nontrainable_weights",
    ),
    *("sparse_gradients", "load_universal_checkpoint", "timers", "torch_autocast", "gradient_accumulation_dtype"),
)
"""Keys that change neither time nor memory of a step here."""

ZERO_FREE = (
    *("contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "allgather_partitions", "allgather_bucket_size"),
    *("round_robin_gradients", "sub_group_size", "stage3_max_live_parameters", "stage3_max_reuse_distance"),
    *("stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage3_model_persistence_threshold"),
    *(
        "stage3_gather_16bit_weights_on_model_save",
        "stage3_gather_fp16_weights_on_model_save",
        "ignore_unused_parameters",
    ),
    *("load_from_fp32_weights", "elastic_checkpoint", "param_persistence_threshold", "model_persistence_threshold"),
    *(
        "prefetch_bucket_size",
        "max_live_parameters",
        "max_reuse_distance",
        "gather_16bit_weights_on_model_save",
        "log_trace_cache_warnings",
    ),
    *(
        "legacy_stage1",
        "override_module_apply",
        "use_multi_rank_bucket_allreduce",
        "memory_efficient_linear",
        "pipeline_loading_checkpoint",
    ),
    *(
        "zero_quantized_nontrainable_weights",
        "module_granularity_threshold",
        "use_all_reduce_for_fetch_params",
        "leaf_module",
    ),
)

HOST_FREE = (
    "pin_memory",
    "buffer_count",
    "fast_init",
    "nvme_path",
    "buffer_size",
    "max_in_cpu",
    "pipeline_read",
    "pipeline_write",
    "pipeline",
)

OPTIMIZERS = {
    "adam": "adam",
    "adamw": "adamw",
    "fusedadam": "adam",
    "cpuadam": "adam",
    "lamb": "lamb",
    "sgd": "sgd",
    "muon": "muon",
}

AUTO = "auto"
"""What Hugging Face's Trainer fills in itself."""


def read_deepspeed(path: str | Path, asked: Asked | None = None) -> RunFile:
    """The run file of a DeepSpeed configuration; ``asked`` names machine and model, which are not in it.

    ``asked.defined`` may have ``world_size``, ``tp``, ``pp`` and ``ep``, and ``seq_len``. Raises :class:`InputError` with the
    file and the key that cannot be carried. What is "auto" is left to the model's plan, and told.
    """
    asked, file = asked or Asked(), Path(path)
    table = {key: value for key, value in read_table(file).items() if not key.startswith("_")}
    auto = [key for key, value in table.items() if value == AUTO]
    keys = Keys({key: value for key, value in table.items() if value != AUTO}, str(file), aside=frozenset(asked.ignore))
    keys.leave_out(asked.ignore)
    keys.free(*FREE)
    plan: dict[str, Any] = {}
    zero = keys.table("zero_optimization", default={})
    auto += _zero(zero, plan)
    _formats(keys, plan)
    _activations(keys, plan)
    mesh, replicas = _mesh(keys, asked, plan["zero"])
    _batch(keys, plan, replicas)
    if mesh:
        plan["mesh"] = mesh
    if (length := asked.defined.get("seq_len")) is not None:
        plan["seq_len"] = Keys({"seq_len": length}, "--define").whole("seq_len")
    keys.finish("a run file")
    if auto:
        asked.tell(f"{', '.join(auto)}: auto in {file}, left to the model's plan")
    return RunFile(file, machine=asked.machine, model=asked.model, plan=plan)


class DeepSpeedConfiguration(Importer):
    """DeepSpeed's JSON: sharding, offload, batch and formats of a plan."""

    makes: ClassVar[Makes] = "run file"

    def read(self, path: Path, asked: Asked) -> RunFile:
        """The run file."""
        return read_deepspeed(path, asked)


def _zero(zero: Keys, plan: dict[str, Any]) -> list[str]:
    """Stage, ZeRO++, offload and overlap; returns what is auto."""
    zero.free(*ZERO_FREE)
    stage = zero.whole("stage", default=0, least=0, most=3)
    plan["zero"] = str(stage)
    weights = zero.truth("zero_quantized_weights", default=False)
    gradients = zero.truth("zero_quantized_gradients", default=False)
    group = zero.whole("zero_hpz_partition_size", default=1)
    if weights or gradients or group > 1:
        if not (weights and gradients and group > 1 and stage == 3):
            lacking = (
                "zero_quantized_weights"
                if not weights
                else "zero_quantized_gradients"
                if not gradients
                else "zero_hpz_partition_size"
            )
            raise zero.wrong(lacking, "parts of ZeRO++ alone cannot be carried; must go with the other two and stage 3")
        plan["zero"] = "++"
    if (mics := zero.whole("mics_shard_size", default=-1, least=-1)) > 0:
        raise zero.wrong("mics_shard_size", f"shards within {mics} ranks cannot be carried")
    zero.free("mics_hierarchical_params_gather")
    held = []
    if zero.truth("cpu_offload", default=False):
        held.append("optimizer")
    for key, name in (("offload_optimizer", "optimizer"), ("offload_param", "parameters")):
        inside = zero.table(key, default={})
        inside.free(*HOST_FREE)
        device = inside.one_of("device", "none", "cpu", default="none", why="offload to disks cannot be carried")
        share = inside.number("ratio", default=1.0)
        if device == "cpu" and share > 0:
            held.append(name if share >= 1 else f"{name}:{share:g}")
    if held:
        plan["offload"] = ",".join(held)
    beside = zero.raw("overlap_comm", default=stage == 3)
    if beside == AUTO:
        return ["overlap_comm"]
    plan["overlap"] = "gradients" if zero.truth("overlap_comm", default=stage == 3) else "none"
    return []


def _formats(keys: Keys, plan: dict[str, Any]) -> None:
    """Number formats and the optimizer."""
    half, brain = keys.table("fp16", default={}), keys.table("bf16", default=keys.raw("bfloat16", default={}))
    half.free("auto_cast", "loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale")
    half.free("consecutive_hysteresis", "fp16_master_weights_and_grads")
    brain.free("auto_cast", "immediate_grad_update", "check_grad_overflow", "bf16_master_weights_and_grads")
    formats = []
    for inside, name in ((half, "O2"), (brain, "bf16")):
        if inside.raw("enabled", default=False) != AUTO and inside.truth("enabled", default=False):
            formats.append(name)
    if len(formats) > 1:
        raise InputError(f"{keys.source}: fp16 and bf16 are both enabled; one of them can be")
    auto = AUTO in (half.raw("enabled", default=None), brain.raw("enabled", default=None))
    if formats or not auto:
        plan["precision"] = formats[0] if formats else "O0"
    optimizer = keys.table("optimizer", default={})
    optimizer.free("params", "legacy_fusion")
    kind = optimizer.text("type", default=None)
    if kind is not None and kind != AUTO:
        found = OPTIMIZERS.get(kind.lower())
        if found is None:
            raise optimizer.wrong("type", f"no such optimizer here; can be {', '.join(dict.fromkeys(OPTIMIZERS))}")
        plan["optimizer"] = found


def _activations(keys: Keys, plan: dict[str, Any]) -> None:
    """Where kept inputs of layers lie; that layers are recomputed at all is said by the model's code."""
    kept = keys.table("activation_checkpointing", default={})
    kept.free("contiguous_memory_optimization", "number_checkpoints", "synchronize_checkpoint_boundary", "profile")
    kept.one_of(
        "partition_activations", False, default=False, why="inputs divided over tensor-parallel ranks cannot be carried"
    )
    if kept.truth("cpu_checkpointing", default=False):
        plan["recompute"] = "full"
        plan["offload"] = ",".join([*([plan["offload"]] if "offload" in plan else []), "activations"])


def _mesh(keys: Keys, asked: Asked, zero: str) -> tuple[dict[str, int], int | None]:
    """The mesh, as far as it is known, and its replicas."""
    defined = Keys(asked.defined, "--define")
    tensor = keys.table("tensor_parallel", default={})
    tensor.free("tp_grain_size", "tp_overlap_comm", "partition_config")
    tp = defined.whole("tp", default=tensor.whole("autotp_size", "tp_size", default=1))
    inside = keys.table("pipeline", default={})
    inside.free("activation_checkpoint_interval", "seed_layers", "pipe_partitioned", "grad_partitioned", "partition")
    pp = defined.whole("pp", default=inside.raw("stages", default=1) if inside.raw("stages", default=1) != AUTO else 1)
    ep = defined.whole("ep", default=1)
    cp = keys.whole("sequence_parallel_size", default=1)
    if cp > 1:
        raise keys.wrong("sequence_parallel_size", "sequences divided by heads (Ulysses) cannot be carried")
    ranks = defined.whole("world_size", default=None)
    told = (keys.whole("train_batch_size", default=None), keys.whole("train_micro_batch_size_per_gpu", default=None))
    if ranks is None and None not in told:
        parts, rest = divmod(told[0], told[1] * keys.whole("gradient_accumulation_steps", default=1))
        if rest or not parts:
            raise keys.wrong(
                "train_batch_size", "is no multiple of train_micro_batch_size_per_gpu x gradient_accumulation_steps"
            )
        ranks = parts * tp * pp
    if ranks is None:
        return {}, None
    replicas, rest = divmod(ranks, tp * pp)
    if rest or replicas % ep:
        raise InputError(f"--define world_size={ranks}: is no multiple of tp x pp x ep = {tp} x {pp} x {ep}")
    data = "fsdp" if zero in ("3", "++") else "dp"
    sizes = {"pp": pp, data: replicas // ep, "ep": ep, "tp": tp}
    return {name: size for name, size in sizes.items() if size > 1} or {"dp": 1}, replicas


def _batch(keys: Keys, plan: dict[str, Any], replicas: int | None) -> None:
    """A step's sequences: as the file says, or those of a micro-batch times steps of accumulation times replicas."""
    whole = keys.whole("train_batch_size", default=None)
    micro = keys.whole("train_micro_batch_size_per_gpu", default=None)
    times = keys.whole("gradient_accumulation_steps", default=1 if whole is None else None)
    if micro is not None:
        plan["micro_batch"] = micro
    if whole is None and micro is not None and replicas is not None:
        whole = micro * times * replicas
    if whole is None:
        return
    if replicas is not None and micro is not None and times is not None and whole != micro * times * replicas:
        raise keys.wrong(
            "train_batch_size", f"must be {micro} x {times} x {replicas}, micro-batch, accumulation and replicas"
        )
    if replicas is not None and micro is None and times is not None:
        each, rest = divmod(whole, times * replicas)
        if not rest and each:
            plan["micro_batch"] = each
    plan["global_batch"] = whole
