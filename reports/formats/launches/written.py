"""A run file, ready to launch: flags of Megatron-LM, the JSON of DeepSpeed, a script for Slurm. What has no word is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....workloads.plan.setting import Setting
from ..kinds import Contents, Exporter, Wanted
from ..run_settings import RUN_FILE, setting_of
from .job_scripts import JobShape, slurm_header
from .megatron_writer import megatron_flags


class MegatronFlags(Exporter):
    """flags of Megatron-LM, one a line, for a run file's model and plan."""

    takes: ClassVar[str] = RUN_FILE

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """One file, which `athanor import megatron` reads back."""
        return {wanted.out: "\n".join(megatron_flags(setting_of(source, wanted), wanted.tell)) + "\n"}


class DeepSpeedJson(Exporter):
    """DeepSpeed's JSON: what a run file's plan shards and offloads, its batch and formats."""

    takes: ClassVar[str] = RUN_FILE

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """One file, which `athanor import deepspeed` reads back."""
        table = deepspeed_table(setting_of(source, wanted), str(source))
        return {wanted.out: json.dumps(table, indent=2) + "\n"}


class SlurmScript(Exporter):
    """script for Slurm that starts Megatron-LM with a run file's plan."""

    takes: ClassVar[str] = RUN_FILE

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """One script."""
        setting = setting_of(source, wanted)
        return {wanted.out: slurm_script(setting, megatron_flags(setting, wanted.tell))}


def slurm_script(setting: Setting, flags: list[str]) -> str:
    """A script for sbatch: a task for each rank, the flags as an array, and where to put one's own."""
    shape = JobShape.of(setting)
    lines = [
        *slurm_header(shape, f"--gpus-per-node={shape.each}"),
        "",
        "# Paths of data, tokenizer and checkpoints are yours: put their flags into OWN_ARGS.",
        "OWN_ARGS=()",
        "",
        "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)",
        "export MASTER_ADDR MASTER_PORT=6000",
        "",
        "MEGATRON_ARGS=(",
        *(f"    {flag}" for flag in flags if not flag.startswith("#")),
        ")",
        "",
        "srun bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec \"$@\"' -- \\",
        '    python pretrain_gpt.py "${MEGATRON_ARGS[@]}" "${OWN_ARGS[@]}"',
    ]
    return "\n".join(lines) + "\n"


def deepspeed_table(setting: Setting, source: str) -> dict[str, Any]:
    """The JSON of a plan; raises :class:`InputError` for what DeepSpeed has no key for."""
    plan, batch, mesh = setting.plan, setting.batch, setting.mesh
    formats = {"bf16": "bf16", "O1": "fp16", "O2": "fp16", "O0": None}
    refusals: list[tuple[bool, str, Callable[[], Any]]] = [
        (plan.zero not in ("0", "1", "2", "3", "++"), "zero", lambda: plan.zero),
        (plan.precision not in formats, "precision", lambda: plan.precision),
        (mesh.size("cp") > 1, "mesh", lambda: str(mesh)),
        (batch.micro_tokens % batch.seq_len > 0, "micro_batch", lambda: f"{batch.micro_tokens} tokens"),
    ]
    for wrong, key, value in refusals:
        if wrong:
            raise InputError(f"{source}: plan.{key} is {value()}: DeepSpeed's JSON has no word for it")
    stage = 3 if plan.zero == "++" else int(plan.zero)
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": plan.overlap != "none"}
    if plan.zero == "++":
        zero |= {
            "zero_quantized_weights": True,
            "zero_quantized_gradients": True,
            "zero_hpz_partition_size": setting.ranks_per_node,
        }
    table: dict[str, Any] = {
        "train_batch_size": batch.tokens // batch.seq_len * mesh.replicas,
        "train_micro_batch_size_per_gpu": batch.micro_tokens // batch.seq_len,
        "gradient_accumulation_steps": batch.micro_batches,
        "zero_optimization": zero,
    }
    names = {"optimizer": "offload_optimizer", "parameters": "offload_param"}
    for what, share in plan.offload_shares.items():
        if what == "activations":
            table["activation_checkpointing"] = {"cpu_checkpointing": True}
        elif what in names:
            zero[names[what]] = {"device": "cpu", "pin_memory": True, **({"ratio": share} if share < 1 else {})}
        else:
            raise InputError(f"{source}: plan.offload is {plan.offload}: DeepSpeed's JSON has no word for {what}")
    if (kind := formats[plan.precision]) is not None:
        table[kind] = {"enabled": True}
    kinds = {"adam": "Adam", "adamw": "AdamW", "lamb": "Lamb", "sgd": "SGD", "muon": "Muon"}
    if plan.optimizer not in kinds:
        raise InputError(f"{source}: plan.optimizer is {plan.optimizer}: DeepSpeed has none of that name")
    table["optimizer"] = {"type": kinds[plan.optimizer]}
    return table
