"""Dense strategies over real messages, four ranks: each is checked by the job itself against one process that computes it all."""

import json

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.execute.capabilities import data_of
from athanor.workloads.model.model import load_model
from athanor.workloads.optimizers import OPTIMIZERS
from athanor.workloads.plan.setting import Setting
from support.mpi_jobs import job, needs_mpi
from support.paths import JOBS

MODERN = """
name = "modern"
layers = 2
heads = 8
kv_heads = 4
head_size = 6
hidden = 32
ffn_hidden = 48
gated = true
norm = "rms"
tied = false
vocabulary = 101
seq_len = 16
"""
"""Grouped queries, heads of another width, gates, RMS norms, an output layer of its own, words that do not divide."""

PLANS = {
    "tensor": [
        {"mesh": {"tp": 4}},
        {"mesh": {"tp": 2, "dp": 2}, "way": {"collectives": "library"}},
        {"mesh": {"tp": 4}, "sequence_parallel": True, "recompute": "full"},
        {"mesh": {"dp": 2, "tp": 2}, "sequence_parallel": True, "zero": "2", "micro_batch": 2},
        {"mesh": {"tp": 4}, "tensor": "2d"},
        {"mesh": {"tp": 4}, "tensor": "2d", "zero": "1", "recompute": "full", "way": {"collectives": "library"}},
        {"mesh": {"tp": 2, "dp": 2}, "attention": "fused"},
    ],
    "context": [
        {"mesh": {"cp": 4}, "recompute": "modules:core_attn+mlp", "recompute_layers": "every:2"},
        {"mesh": {"cp": 2, "dp": 2}, "zero": "1"},
        {"mesh": {"cp": 4}, "attention": "fused"},
        {"mesh": {"cp": 2, "tp": 2}, "attention": "fused", "sequence_parallel": True, "recompute": "full"},
        {"mesh": {"pp": 2, "cp": 2}, "attention": "fused", "pipeline": "zb-h1", "way": {"collectives": "library"}},
        {"mesh": {"tp": 2, "cp": 2}, "sequence_parallel": True, "way": {"collectives": "library"}},
    ],
    "sharded": [
        {"mesh": {"dp": 4}},
        {"mesh": {"dp": 4}, "zero": "1", "overlap": "gradients"},
        {"mesh": {"dp": 4}, "zero": "2", "micro_batch": 1},
        {"mesh": {"dp": 4}, "zero": "3", "micro_batch": 2, "overlap": "gradients", "recompute": "full"},
        {"mesh": {"fsdp": 2, "dp": 2}, "zero": "3"},
        {"mesh": {"fsdp": 2, "dp": 2}, "zero": "2", "micro_batch": 2},
        {"mesh": {"tp": 2, "fsdp": 2}, "zero": "3"},
        {"mesh": {"dp": 4}, "zero": "hierarchical", "precision": "layerwise"},
        {"mesh": {"dp": 2, "tp": 2}, "precision": "O0"},
    ],
    "many micro-batches, modern": [  # which blocks stand for
        {"mesh": {"dp": 4}, "tokens_per_rank": 1056, "micro_batch": 1, "zero": "1"},
    ],
    "pipeline": [
        {"mesh": {"pp": 4}},
        {"mesh": {"pp": 4}, "pipeline": "gpipe"},
        {"mesh": {"pp": 2, "dp": 2}, "pipeline": "interleaved", "chunks": 2, "zero": "1"},
        {"mesh": {"pp": 4}, "stage_layers": "0,1,2,1", "zero": "1"},
        {
            "mesh": {"pp": 2, "dp": 2},
            "pipeline": "interleaved",
            "chunks": 3,
            "stage_layers": "ends",
            "recompute": "full",
        },
        {"mesh": {"pp": 2, "tp": 2}, "sequence_parallel": True},
        {"mesh": {"pp": 2, "cp": 2}, "recompute": "full", "recompute_layers": "first:1"},
        {"mesh": {"pp": 4}, "pipeline": "zb-h1"},
        {"mesh": {"pp": 2, "dp": 2}, "zero": "2", "recompute": "full"},
        {"mesh": {"pp": 2, "dp": 2}, "zero": "2", "overlap": "gradients", "pipeline": "zb-h1"},
        {"mesh": {"pp": 2, "fsdp": 2}, "zero": "1", "overlap": "gradients", "way": {"collectives": "library"}},
    ],
    "modern": [
        {"mesh": {"tp": 4}, "sequence_parallel": True},
        {"mesh": {"tp": 4}, "tensor": "2d"},
        {"mesh": {"pp": 2, "tp": 2}},
        {"mesh": {"cp": 4}, "zero": "1"},
        {"mesh": {"cp": 4}, "zero": "1", "attention": "fused"},
    ],
    "optimizers": [
        {"optimizer": optimizer, **plan}
        for optimizer in sorted({*OPTIMIZERS} - {"adam"})
        for plan in (
            {"mesh": {"dp": 2, "tp": 2}, "zero": "1"},
            {"mesh": {"fsdp": 2, "dp": 2}, "zero": "3"},
        )
    ]
    + [{"optimizer": optimizer, "mesh": {"pp": 4}, "zero": "0"} for optimizer in ("adafactor", "muon")],
    "optimizers, modern": [
        {"optimizer": optimizer, **plan}
        for optimizer in sorted({*OPTIMIZERS} - {"adam"})
        for plan in (
            {"mesh": {"tp": 4}, "tensor": "2d", "zero": "0"},
            {"mesh": {"tp": 2, "cp": 2}, "zero": "2", "way": {"collectives": "library"}},
        )
    ],
}


@needs_mpi
@pytest.mark.parametrize("kind", PLANS)
def test_strategies_train_as_one_process_does(kind, tmp_path):
    """Loss, gradients and weights are compared by the job; here, what it says it has done, with the simulation of the same."""
    model = "gpt-tiny"
    if kind.endswith("modern"):
        model = str(tmp_path / "modern.toml")
        (tmp_path / "modern.toml").write_text(MODERN)
    plans = [{"model": model, "precision": "fp64", "tokens_per_rank": 128, **plan} for plan in PLANS[kind]]
    done = job(4, "python", JOBS / "dense.py", *map(json.dumps, plans))
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    parameters = load_model(model).parameters.total
    for plan, line in zip(plans, lines, strict=True):
        found, options = json.loads(line), {key: plan[key] for key in plan if key not in ("model", "way")}
        measured, checked = found["summary"], found["summary"]["measured"]["checked"]
        assert checked["losses"] == 4
        assert min(checked["gradients"], checked["weights"]) >= parameters
        simulated = athanor.simulate("laptop", model, **options)
        predicted = simulated.summary()
        by_class = simulated.to_frame().groupby("class")["operation"].apply(sorted).to_list()
        names = [sorted(each) for each in found["names"].values()]
        assert len(names) == 4 and all(each in names for each in by_class)
        assert plan["mesh"].get("pp") == 4 or all(
            each in by_class for each in names
        )  # stages in between are not observed
        assert measured["flops_per_step"] == pytest.approx(predicted["flops_per_step"])
        assert sum(measured["breakdown"].values()) == pytest.approx(measured["step_seconds"])
        assert (measured["breakdown"]["pipeline_bubble"] > 0) == ("pp" in plan["mesh"])


@needs_mpi
def test_a_pipeline_is_compared_with_its_prediction(tmp_path):
    plan = {"mesh": {"pp": 2, "dp": 2}, "tokens_per_rank": 128}
    athanor.simulate("laptop", "gpt-tiny", **plan).save(tmp_path / "predicted.json")
    flags = ("--model", "gpt-tiny", "--mesh", "pp=2,dp=2", "--tokens-per-rank", "128")
    done = job(4, "athanor", "execute", *flags, "-o", tmp_path / "measured.json")
    assert done.returncode == 0, done.stderr
    (pair,) = athanor.compare_runs(tmp_path / "predicted.json", tmp_path / "measured.json").plain()["pairs"]
    assert {(row["ranks"], row["name"]) for row in pair["operations"]} >= {
        ("first stage (pp=0,dp=0)", "embedding.lookup"),
        ("last stage (pp=1,dp=0)", "activations"),
    }
    moved = [row for row in pair["traffic"] if row["collective"] == "shift"]
    assert moved and all(row["predicted_bytes"] == row["measured_bytes"] for row in moved), moved


@needs_mpi
def test_an_exchange_that_is_wrong_is_found():
    done = job(
        4, "python", JOBS / "dense.py", "spoil", json.dumps({"mesh": {"tp": 4}, "tensor": "2d", "precision": "fp64"})
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "check of" in line]
    assert "check of the loss: " in line and "must be" in line


REAL = "; --compute sleep only sends what the schedule says"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "gpt-tiny",
            {"mesh": {"pp": 4}, "pipeline": "pipedream", "zero": "0"},
            "--pipeline pipedream: has no end that could be checked; executed for real are gpipe, 1f1b, interleaved, zb-h1, zb-h2",
        ),
        (
            "gpt-tiny",
            {"mesh": {"fsdp": 4}, "zero": "++"},
            "--zero ++: the runtime does not quantise; it runs 0, 1, 2, 3 and hierarchical",
        ),
        (
            "gpt-tiny",
            {"mesh": {"dp": 4}, "precision": "bf16", "moments": "fp8"},
            "--precision bf16 --moments fp8: nothing is kept in fp8 (fp64, fp32, fp16, bf16)",
        ),
        (
            "gpt-tiny",
            {"mesh": {"dp": 4}, "tokens_per_rank": 100},
            "--tokens-per-rank 100: 100 tokens of a micro-batch are no whole sequences of 32 (--seq-len) that cp=1 cuts evenly",
        ),
        (
            "gpt-1",
            {"mesh": {"dp": 4}},
            "--model gpt-1: has biases and dropout and learned positions; executed for real are decoders without",
        ),
        (
            "moda-tiny",
            {"mesh": {"ep": 4}, "dispatch": "node-limited"},
            "--dispatch node-limited: over MPI every copy of a token travels by itself (--dispatch copies)",
        ),
        (
            "moda-tiny",
            {"mesh": {"ep": 2, "dp": 2}, "prototypes": 2, "top_k": 1, "router": "uniform"},
            "--prototypes: the runtime's gates choose among all experts",
        ),
    ],
)
def test_what_cannot_be_executed_for_real_is_only_sent(model, options, message):
    setting = Setting.of("laptop", model, options)
    with pytest.raises(InputError) as refused:
        data_of(setting, computes=True, real=True)
    assert str(refused.value) == message + REAL
    assert data_of(setting, computes=False, real=False) == "blank"


SENT = [
    {"mesh": {"pp": 4}, "pipeline": "pipedream", "zero": "0"},
    {"mesh": {"fsdp": 2, "dp": 2}, "zero": "++"},
    {"mesh": {"tp": 4}, "tensor": "2d"},
    {"mesh": {"pp": 2, "cp": 2}, "pipeline": "zb-h2"},
    {"mesh": {"cp": 4}, "attention": "fused", "recompute": "full"},
    {"mesh": {"pp": 2, "cp": 2}, "attention": "fused", "pipeline": "zb-h1"},
    {
        "model": "moda-tiny",
        "mesh": {"ep": 2, "tp": 2},
        "balancer": "none",
        "router": "zipf:1",
        "all_to_all": "pairwise-xor",
    },
    {"model": "moda-tiny", "mesh": {"ep": 2, "tp": 2}, "expert_tensor": "whole", "precision": "O0"},
]


@needs_mpi
def test_a_virtual_accelerator_sends_what_any_strategy_sends():
    """Bytes of each rank are those of the schedule, as far as they do not depend on how an algorithm cuts them."""
    plans = [{"tokens_per_rank": 64, **plan, "way": {"compute": "sleep"}} for plan in SENT]
    done = job(4, "python", JOBS / "dense.py", *map(json.dumps, plans))
    assert done.returncode == 0 and not done.stderr, done.stderr
    for plan, line in zip(plans, done.stdout.splitlines(), strict=True):
        options = {key: plan[key] for key in plan if key not in ("model", "way")}
        measured = json.loads(line)["summary"]
        predicted = athanor.simulate("laptop", plan.get("model", "gpt-tiny"), **options).summary()
        assert measured["measured"]["checked"] is None
        (ring,) = [row for row in measured["links"] if row["kind"] == "ring"]
        (expected,) = [row for row in predicted["links"] if row["kind"] == "ring"]
        if plan["mesh"] != {"pp": 4}:  # an endless pipeline is written out as one that fills and drains
            assert ring["bytes_per_step"] == pytest.approx(expected["bytes_per_step"], rel=0.02), plan
