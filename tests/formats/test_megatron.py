"""Launches of Megatron-LM in each of their forms become the same run file, which simulates; what cannot be carried is refused."""

import json
import re

import athanor as package
import pytest
from athanor import InputError, load_model, read_megatron, read_run_file
from athanor.reports.formats.kinds import Asked
from athanor.reports.formats.launches.shell import Script, arithmetic, repeated
from athanor.reports.formats.writing import files_of
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import athanor

FLAGS = {
    "num-layers": 8,
    "hidden-size": 1024,
    "num-attention-heads": 16,
    "seq-length": 512,
    "max-position-embeddings": 512,
    "tensor-model-parallel-size": 2,
    "pipeline-model-parallel-size": 2,
    "micro-batch-size": 1,
    "global-batch-size": 16,
    "vocab-size": 50000,
}
GPT = " ".join(f"--{name} {value}" for name, value in FLAGS.items())

SCRIPTS = {
    "gpt-array": f"""#!/bin/bash
# Trains a small GPT
export CUDA_DEVICE_MAX_CONNECTIONS=1
GPUS_PER_NODE=8
NUM_NODES=${{SLURM_NNODES:-2}}
WORLD_SIZE=$(($GPUS_PER_NODE*$NUM_NODES))
CHECKPOINT_PATH=$1
DISTRIBUTED_ARGS=(
    --nproc_per_node $GPUS_PER_NODE
    --nnodes $NUM_NODES
    --master_addr $MASTER_ADDR
)
GPT_MODEL_ARGS=(
    {GPT}   # the model
    --attention-backend auto
)
TRAINING_ARGS=(--bf16 --lr 6.0e-5 --lr-decay-style cosine --train-iters 500000 --weight-decay 0.1 --clip-grad 1.0)
torchrun ${{DISTRIBUTED_ARGS[@]}} pretrain_gpt.py \\
    ${{GPT_MODEL_ARGS[@]}} \\
    ${{TRAINING_ARGS[@]}} --save $CHECKPOINT_PATH --log-interval 100 2>&1 | tee out.log
""",
    "gpt-string": f"""
TP=2; export X
GPT_ARGS="
    {GPT} \\
    --sequence-parallel --use-distributed-optimizer
    --overlap-grad-reduce --overlap-param-gather
    --bf16
"
python -m torch.distributed.launch --nproc_per_node 8 --nnodes 2 pretrain_gpt.py $GPT_ARGS --distributed-backend nccl
""",
    "slurm": f"""#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --exclusive
srun --container-image x.sqsh python pretrain_gpt.py {GPT} --fp16 --recompute-granularity full --recompute-method uniform --recompute-num-layers 1
""",
    "llama": f"""
torchrun --nproc_per_node=8 --nnodes=2 pretrain_gpt.py {GPT} --swiglu --normalization RMSNorm --disable-bias-linear
 --untie-embeddings-and-output-weights --position-embedding-type rope --group-query-attention --num-query-groups 4
 --ffn-hidden-size 2816 --bf16 --hidden-dropout 0 --attention-dropout 0 --num-layers-per-virtual-pipeline-stage 2
 --recompute-activations --sequence-parallel --tp-comm-overlap --use-flash-attn --transformer-impl transformer_engine
""".replace("\n ", " \\\n "),
    "moe": f"""
torchrun --nproc_per_node=8 --nnodes=2 pretrain_gpt.py {GPT} --num-experts 8 --expert-model-parallel-size 4 --moe-router-topk 2 \\
  --moe-grouped-gemm --moe-token-dispatcher-type alltoall --moe-aux-loss-coeff 1e-2 --moe-ffn-hidden-size 512 --bf16 \\
  --moe-layer-freq "([0]*1+[1]*7)" --moe-shared-expert-intermediate-size 512 --moe-router-load-balancing-type aux_loss \\
  --sequence-parallel --use-distributed-optimizer --no-rope-fusion --position-embedding-type rope
""",
    "moe-whole": f"""
torchrun --nproc_per_node=8 --nnodes=2 pretrain_gpt.py {GPT} --num-experts 8 --expert-model-parallel-size 8 \\
  --expert-tensor-parallel-size 1 --moe-router-topk 2 --bf16 --sequence-parallel --moe-expert-capacity-factor 1.25
""",
    "mla": f"""
torchrun --nproc_per_node=8 --nnodes=2 pretrain_gpt.py {GPT} --multi-latent-attention --q-lora-rank 256 --kv-lora-rank 128 \\
  --qk-head-dim 64 --qk-pos-emb-head-dim 32 --v-head-dim 64 --bf16 --qk-layernorm --position-embedding-type rope \\
  --recompute-granularity selective --recompute-modules mla_up_proj layernorm --sequence-parallel
""",
    "fsdp": f"""
torchrun --nproc_per_node=8 --nnodes=2 pretrain_gpt.py {GPT.replace('tensor-model-parallel-size 2', 'tensor-model-parallel-size 1')
    .replace('pipeline-model-parallel-size 2', 'pipeline-model-parallel-size 1')} --use-megatron-fsdp
  --data-parallel-sharding-strategy optim_grads_params --bf16 --use-distributed-optimizer --cross-entropy-loss-fusion
""".replace("\n  --data", " --data"),
    "context": f"""
torchrun --nproc_per_node=8 --nnodes=2 pretrain_gpt.py {GPT} --context-parallel-size 2 --cp-comm-type p2p --bf16 \\
  --optimizer-cpu-offload --optimizer-offload-fraction 0.5 --sequence-parallel --use-distributed-optimizer
""",
    "fp8": f"""
torchrun --nproc_per_node=8 --nnodes=2 pretrain_gpt.py {GPT} --fp8-format hybrid --fp8-amax-history-len 1024 --bf16 \\
  --decoder-first-pipeline-num-layers 3 --accumulate-allreduce-grads-in-fp32 --recompute-granularity full \\
  --recompute-method block --recompute-num-layers 2
""",
    "old": f"""
python -m torch.distributed.launch --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --model-parallel-size 4 {GPT} --fp16 \\
  --loss-scale 0 --vocab-file gpt2-vocab.json --merge-file gpt2-merges.txt --split 949,50,1 --eval-interval 1000
""".replace("--tensor-model-parallel-size 2", ""),
    "rampup": f"""
torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py {GPT} --rampup-batch-size 4 4 1000 --bf16 --use-distributed-optimizer \\
  --tokenizer-type NullTokenizer --no-masked-softmax-fusion --no-gradient-accumulation-fusion --timing-log-level 0
""",
}  # fmt: skip
"""Scripts of the shapes that are published with Megatron-LM, small."""

MACHINE = "eos-h100"


def script(folder, text, name="train.sh"):
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_launch_script_becomes_a_run_file_that_simulates(name, tmp_path):
    file, out = script(tmp_path, SCRIPTS[name]), tmp_path / "run.toml"
    done = athanor("import", "megatron", file, "-o", out, "--machine", MACHINE)
    assert done.returncode == 0, done.stderr
    read = read_run_file(out)
    ranks = 1
    for size in read.plan["mesh"].values():
        ranks *= size
    assert ranks == 16
    assert package.simulate(out, depth="bound").totals.ranks == 16
    assert load_model(read.chosen_model) == read_megatron(file, Asked(machine=MACHINE)).model


def test_experts_of_more_ranks_than_dp_has_fold_over_cp(tmp_path):
    text = SCRIPTS["moe"].replace("--num-experts 8", "--num-experts 8 --context-parallel-size 2")
    plan = read_megatron(script(tmp_path, text), Asked(machine=MACHINE)).plan
    assert plan["mesh"] == {"pp": 2, "ep": 2, "cp": 2, "tp": 2} and plan["expert_context"] == "spread"


def test_experts_fold_over_tp_then_cp_then_dp(tmp_path):
    """As Megatron-Core numbers ranks of experts, also where dp alone has enough of them; a part of an axis is a number."""
    text = SCRIPTS["moe"].replace("nnodes=2", "nnodes=8")

    def plan_with(**flags):
        more = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in flags.items())
        changed = text
        for key in flags:
            changed = re.sub(rf"--{key.replace('_', '-')} \S+", "", changed)
        return read_megatron(script(tmp_path, changed.replace("--bf16", f"--bf16 {more}")), Asked(machine=MACHINE)).plan

    plan = plan_with(context_parallel_size=2, expert_model_parallel_size=4)
    assert plan["mesh"] == {"pp": 2, "dp": 4, "ep": 2, "cp": 2, "tp": 2} and plan["expert_context"] == "spread"
    plan = plan_with(context_parallel_size=4, expert_model_parallel_size=2)
    assert plan["mesh"] == {"pp": 2, "dp": 4, "cp": 4, "tp": 2} and plan["expert_context"] == "2"
    plan = plan_with(
        context_parallel_size=2,
        tensor_model_parallel_size=4,
        expert_tensor_parallel_size=2,
        expert_model_parallel_size=8,
    )
    assert plan["mesh"] == {"pp": 2, "dp": 2, "ep": 2, "cp": 2, "tp": 4}
    assert (plan["expert_tensor"], plan["expert_context"]) == ("2", "spread")
    with pytest.raises(InputError, match="must divide tp = 2"):
        plan_with(expert_tensor_parallel_size=4)


def flat(run_file):
    return run_file.plan, run_file.model.model_dump(exclude={"name", "sources"})


ARGUMENTS = {
    **{name.replace("-", "_"): value for name, value in FLAGS.items()},
    "bf16": True,
    "swiglu": True,
    "sequence_parallel": True,
    "use_distributed_optimizer": True,
    "overlap_grad_reduce": True,
    "world_size": 16,
    "normalization": "RMSNorm",
    "untie_embeddings_and_output_weights": True,
    "position_embedding_type": "rope",
    "recompute_granularity": "selective",
}


def test_all_forms_of_the_same_arguments_give_the_same_run_file(tmp_path):
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in ARGUMENTS.items()
    ]
    default = {"context_parallel_size": 1, "fp16": False, "num_experts": None, "save": "x", "novel_default": 17}
    whole = {**ARGUMENTS, **default}
    model = {key: value for key, value in ARGUMENTS.items() if key not in ("micro_batch_size", "global_batch_size", "world_size",
             "use_distributed_optimizer", "overlap_grad_reduce", "bf16")}  # fmt: skip
    bridge = {
        "model": {"_target_": "megatron.bridge.models.GPTModelProvider", **model},
        "train": {"micro_batch_size": 1, "global_batch_size": 16, "train_iters": 100},
        "ddp": {"use_distributed_optimizer": True, "overlap_grad_reduce": True},
        "mixed_precision": {"bf16": True},
        "trainer": {"num_nodes": 2, "devices": 8},
        "logger": {"tensorboard_dir": "x"},
    }
    forms = {
        "list.txt": "\n".join(words),
        "script.sh": "ARGS=(\n" + "\n".join(words) + "\n)\npython pretrain_gpt.py ${ARGS[@]}\n",
        "dump.txt": f"Namespace({', '.join(f'{key}={value!r}' for key, value in whole.items())}, params_dtype=torch.bfloat16)",
        "log.txt": "\n".join(f"  {key} {'.' * 12} {value}" for key, value in whole.items()),
        "arguments.json": json.dumps(whole),
        "bridge.yaml": json.dumps(bridge),
    }
    notes = []
    found = [
        flat(read_megatron(script(tmp_path, text, name), Asked(tell=notes.append))) for name, text in forms.items()
    ]
    assert all(each == found[0] for each in found[1:])
    assert len(notes) == 3
    assert all("novel_default" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--novel-parallelism 4", "novel_parallelism: a run file cannot carry it; --ignore novel_parallelism"),
        ("--recompute-granularity full --recompute-num-layers 4", "recompute_num_layers is \"4\""),
        ("--cp-comm-type a2a", 'cp_comm_type is "a2a": context parallelism is a ring here'),
        ("--pipeline-model-parallel-size 3", "are no multiple of tp x pp x cp"),
        ("--hidden-size $WIDE", 'hidden_size is "$WIDE": must be a whole number'),
        ("--optimizer lion", "optimizer is"),
        ("--window-size 128", "window_size is"),
    ],
)  # fmt: skip
def test_what_a_run_file_cannot_say_is_refused_by_its_key(change, said, tmp_path):
    with pytest.raises(InputError) as wrong:
        read_megatron(script(tmp_path, f"torchrun --nproc_per_node 8 --nnodes 2 x.py {GPT} --bf16 {change}"))
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_what_the_file_leaves_open_is_asked_for_and_can_be_defined(tmp_path):
    file = script(tmp_path, f"python x.py {GPT} --bf16 --tensor-model-parallel-size $TP")
    with pytest.raises(InputError, match="tensor_model_parallel_size is"):
        read_megatron(file)
    with pytest.raises(InputError, match="--define world_size=N"):
        read_megatron(file, Asked(defined={"TP": "4"}))
    assert read_megatron(file, Asked(defined={"TP": "4", "world_size": "32"})).plan["mesh"] == {
        "pp": 2,
        "dp": 4,
        "tp": 4,
    }


def test_nothing_of_a_script_is_run(tmp_path):
    mark = tmp_path / "ran"
    file = script(
        tmp_path,
        f"X=$(touch {mark})\n`touch {mark}`\ntorchrun --nnodes 2 --nproc_per_node 8 a.py {GPT} --bf16 --save $X",
    )
    read_megatron(file)
    assert not mark.exists()


def test_a_model_may_be_named_instead_of_described(tmp_path):
    file = script(tmp_path, f"torchrun --nproc_per_node 8 --nnodes 2 x.py {GPT} --bf16")
    found = read_megatron(file, Asked(model="gpt-22b"))
    assert [*files_of(found, tmp_path / "run.toml")] == [tmp_path / "run.toml"]
    assert found.model == "gpt-22b"


@given(st.integers(-9, 9), st.integers(1, 9), st.integers(0, 9))
def test_arithmetic_is_the_shells(one, two, three):
    assert arithmetic(f"({one} + {two}) * {three}") == str((one + two) * three)
    assert arithmetic("__import__('os')") == "$((__import__('os')))"
    assert repeated(f"([0]*{three}+[1]*{two})") == [0] * three + [1] * two
    assert repeated("[0]*10**12") is None


def test_arithmetic_has_blanks_and_variables_without_a_sign():
    words = "torchrun --nnodes $((N / 8)) --nproc_per_node $(( $EACH )) x.py --num-layers $(( 2 * L + M ))"
    flags = Script(f"L=3\n{words}", "x.sh", {"N": "64", "EACH": "8"}).flags()
    assert flags == {"nnodes": ["8"], "nproc_per_node": ["8"], "num_layers": ["$((2*3+M))"]}


@given(st.text(max_size=200))
def test_any_text_is_a_script_or_is_refused(text):
    try:
        Script(text, "x.sh", {}).flags()
    except InputError as wrong:
        assert "\n" not in str(wrong)
