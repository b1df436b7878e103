"""DeepSpeed's JSON and torchtitan's TOML as run files: each simulates, and what cannot be carried is refused by its key."""

import json

import athanor as package
import pytest
import tomli_w
from athanor import InputError, read_deepspeed, read_torchtitan
from athanor.reports.formats.kinds import Asked
from support.command_line import athanor

ZERO2 = {
    "train_batch_size": 64,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_print": 2000,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.1}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 100}},
    "gradient_clipping": 1.0,
    "bf16": {"enabled": True},
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "cpu", "pin_memory": True, "ratio": 0.5},
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": 5e8,
        "allgather_bucket_size": 5e8,
    },
    "wall_clock_breakdown": False,
}
AUTO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 4,
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1},
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 3, "overlap_comm": True, "stage3_max_live_parameters": 1e9,
                          "stage3_gather_16bit_weights_on_model_save": True, "offload_param": {"device": "none"}},
    "gradient_clipping": "auto",
}  # fmt: skip


def written(folder, table, name="ds.json"):
    file = folder / name
    file.write_text(json.dumps(table) if name.endswith("json") else tomli_w.dumps(table))
    return file


def test_deepspeeds_stage_batch_and_offload_are_carried(tmp_path):
    found = read_deepspeed(written(tmp_path, ZERO2), Asked(machine="selene", model="gpt-tiny"))
    assert found.plan["zero"] == "2"
    assert found.plan["mesh"] == {"dp": 16}
    assert found.plan["offload"] == "optimizer:0.5"
    assert (found.plan["global_batch"], found.plan["micro_batch"]) == (64, 2)
    assert (found.plan["precision"], found.plan["optimizer"], found.plan["overlap"]) == ("bf16", "adamw", "gradients")
    run = package.simulate(found, depth="bound")
    assert (run.totals.ranks, run.totals.micro_batches) == (16, 2)


def test_what_is_auto_is_told_and_left_to_the_model(tmp_path):
    notes = []
    found = read_deepspeed(written(tmp_path, AUTO), Asked(defined={"world_size": "8"}, tell=notes.append))
    assert found.plan["mesh"] == {"fsdp": 8}
    assert found.plan["global_batch"] == 32
    assert "precision" not in found.plan
    assert len(notes) == 1
    assert "train_batch_size" in notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage is 4"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}, "parts of ZeRO\\+\\+"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "zero_optimization.offload_param.device is \"nvme\""),
        ({"sparse_attention": {"mode": "fixed"}}, "sparse_attention: a run file cannot carry it"),
        ({"optimizer": {"type": "Lion"}}, "optimizer.type is \"Lion\""),
        ({"fp16": {"enabled": True}}, "fp16 and bf16 are both enabled"),
        ({"train_batch_size": 63}, "train_batch_size is 63"),
        ({"zero_optimization": 3}, "zero_optimization is 3: must be a table"),
    ],
)  # fmt: skip
def test_what_deepspeed_says_that_cannot_be_carried_is_refused(change, said, tmp_path):
    with pytest.raises(InputError, match=said):
        read_deepspeed(written(tmp_path, {**ZERO2, **change}))


TITAN = {
    "job": {"dump_folder": "./outputs", "description": "Llama 3 70B training"},
    "metrics": {"log_freq": 10},
    "model": {"name": "llama3", "flavor": "8B", "hf_assets_path": "./assets"},
    "optimizer": {"name": "AdamW", "lr": 1.5e-4, "eps": 1e-8},
    "lr_scheduler": {"warmup_steps": 200},
    "training": {"local_batch_size": 2, "seq_len": 8192, "max_norm": 1.0, "steps": 1000, "dataset": "c4"},
    "parallelism": {
        "data_parallel_replicate_degree": 1,
        "data_parallel_shard_degree": -1,
        "fsdp_reshard_after_forward": "default",
        "tensor_parallel_degree": 2,
        "enable_async_tensor_parallel": False,
        "pipeline_parallel_degree": 1,
        "context_parallel_degree": 1,
    },
    "checkpoint": {"enable": False},
    "activation_checkpoint": {"mode": "selective", "selective_ac_option": "2"},
    "compile": {"enable": True, "components": ["model", "loss"]},
    "quantize": {"linear": {"float8": {"enable_fsdp_float8_all_gather": False}}},
}


def changed(**tables):
    return {**TITAN, **{name: {**TITAN.get(name, {}), **table} for name, table in tables.items()}}


def test_torchtitans_job_is_carried(tmp_path):
    asked = Asked(machine="torchtitan-h100", defined={"world_size": "16"})
    found = read_torchtitan(written(tmp_path, TITAN, "job.toml"), asked)
    assert found.model == "llama3-8b"
    assert found.plan["mesh"] == {"fsdp": 8, "tp": 2}
    assert found.plan["zero"] == "3"
    assert (found.plan["recompute"], found.plan["recompute_layers"]) == ("full", "every:2")
    assert (found.plan["global_batch"], found.plan["micro_batch"], found.plan["seq_len"]) == (16, 2, 8192)
    assert package.simulate(found, depth="bound").totals.ranks == 16


def test_torchtitans_pipelines_and_converters_are_carried(tmp_path):
    table = changed(
        model={"converters": ["quantize.linear.float8"]},
        parallelism={"pipeline_parallel_degree": 4, "pipeline_parallel_schedule": "Interleaved1F1B", "data_parallel_shard_degree": 4},
        training={"global_batch_size": 64},
        activation_checkpoint={"mode": "full"},
    )  # fmt: skip
    plan = read_torchtitan(written(tmp_path, table, "job.toml")).plan
    assert plan["mesh"] == {"pp": 4, "fsdp": 4, "tp": 2}
    assert (plan["pipeline"], plan["chunks"], plan["precision"]) == ("interleaved", 2, "fp8")
    assert (plan["global_batch"], plan["micro_batch"], plan["recompute"]) == (64, 1, "full")


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "data_parallel_shard_degree is -1: follows from all ranks; --define world_size=N"),
        ({"model": {"flavor": "9B"}}, 'model.flavor is "9B"'),
        ({"parallelism": {"data_parallel_shard_degree": 8, "novel_degree": 2}}, "parallelism.novel_degree: a run file cannot carry it"),
        ({"parallelism": {"data_parallel_shard_degree": 8, "pipeline_parallel_degree": 2, "pipeline_parallel_schedule": "Snake"}}, "pipeline_parallel_schedule is"),
        ({"model": {"converters": ["prune"]}, "parallelism": {"data_parallel_shard_degree": 8}}, "prune cannot be carried"),
    ],
)  # fmt: skip
def test_what_torchtitan_says_that_cannot_be_carried_is_refused(tables, said, tmp_path):
    with pytest.raises(InputError) as wrong:
        read_torchtitan(written(tmp_path, changed(**tables), "job.toml"))
    assert said in str(wrong.value)


def test_the_command_writes_run_files(tmp_path):
    out = tmp_path / "run.toml"
    done = athanor(
        "import", "deepspeed", written(tmp_path, ZERO2), "-o", out, "--machine", "selene", "--model", "gpt-tiny"
    )
    assert done.returncode == 0, done.stderr
    assert athanor("simulate", out, "--depth", "bound").returncode == 0
