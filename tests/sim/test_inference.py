"""Inference: closed forms, what reuse saves, and experts that stream in from the host."""

import athanor
import pytest
from athanor.hardware.machine import Machine
from athanor.workloads.model.model import Model

DENSE = Model(
    name="dense", layers=4, heads=8, hidden=1024, ffn_hidden=4096, vocabulary=2048, seq_len=512, positions=512
)
EXPERTS = Model(
    name="experts",
    layers=4,
    heads=8,
    hidden=1024,
    ffn_hidden=4096,
    experts=16,
    moe_every=2,
    vocabulary=2048,
    seq_len=512,
)


@pytest.fixture(scope="module")
def machine():
    table = athanor.load_machine("cluster-64").model_dump(mode="json")
    table["core_group"] |= {"operator_overhead": "0 s"}
    table["node"] |= {"host_memory": "64 GB", "host_link": "10 GB/s", "host_memory_bandwidth": "100 GB/s"}
    return Machine.model_validate(table)


def infer(machine, model=DENSE, **options):
    return athanor.infer(machine, model, **{"prompt": 256, "new_tokens": 9, "precision": "O0", **options})


def test_a_token_costs_at_least_reading_all_weights(machine):
    found = infer(machine)
    processor = machine.processor(1)
    weights = 4.0 * (DENSE.parameters.total - DENSE.positions * DENSE.hidden)
    floor = weights / (processor.groups * processor.core_group.read_bandwidth * processor.bandwidth_share)
    assert floor <= found.token_seconds <= 1.3 * floor


def test_without_reuse_every_token_computes_everything(machine):
    kept, again = infer(machine), infer(machine, reuse=False)
    assert again.token_seconds == again.first_token_seconds
    assert again.seconds == pytest.approx(9 * again.first_token_seconds)
    assert again.token_seconds > 5 * kept.token_seconds
    flops = 2 * (DENSE.parameters.ffn + DENSE.parameters.attention) * 265
    assert again.first_token_seconds > flops / (
        machine.processor(1).peak("fp32") * machine.processor(1).gemm_efficiency
    )


def test_keys_and_values_that_are_kept(machine):
    found = infer(machine, sequences=3)
    assert found.memory_per_rank_bytes["cache"] == 4 * 2 * 1024 * 4 * 3 * 265
    assert infer(machine, reuse=False).memory_per_rank_bytes["cache"] == 0
    grouped = DENSE.model_copy(update={"kv_heads": 2})
    assert infer(machine, grouped).memory_per_rank_bytes["cache"] == 4 * 2 * 256 * 4 * 265


def test_later_tokens_take_longer_and_passes_between_are_interpolated(machine):
    short, long = infer(machine, new_tokens=2), infer(machine, new_tokens=200)
    assert long.token_seconds > short.token_seconds
    assert long.seconds == pytest.approx(long.first_token_seconds + 199 * long.token_seconds)


def test_the_breakdown_sums_to_the_time(machine):
    for options in ({}, {"model": EXPERTS, "offload": "experts"}, {"mesh": {"tp": 4}}):
        found = infer(machine, **options)
        assert sum(found.breakdown.values()) == pytest.approx(found.seconds)


def test_experts_stream_from_the_host(machine):
    away = infer(machine, EXPERTS, offload="experts")
    size = 4 * EXPERTS.experts * EXPERTS.expert_size
    assert away.memory_per_rank_bytes["host"] == 2 * size
    assert away.host_bytes_per_token == 2 * size  # all experts of both layers that have them
    chosen = infer(machine, EXPERTS, offload="experts", prefetch=False)
    assert chosen.host_bytes_per_token == pytest.approx(2 * size / 16)  # one token, one expert of sixteen
    assert chosen.token_seconds < away.token_seconds  # a single token needs few of them
    assert away.token_seconds >= 2 * size / 10e9 / machine.node.core_groups * 0.9
    near = infer(machine, EXPERTS)
    assert near.host_bytes_per_token == 0
    assert near.seconds < chosen.seconds
    deep = Model(**{**EXPERTS.model_dump(), "layers": 8})
    here, there = (infer(machine, deep, **options).memory_per_rank_bytes for options in ({}, {"offload": "experts"}))
    assert here["weights"] - there["weights"] == 4 * size - 2 * size, "room for two layers of four that have experts"
    half = infer(machine, EXPERTS, offload="experts:0.5")
    assert half.host_bytes_per_token == away.host_bytes_per_token / 2


def test_what_does_not_fit_says_what_would(machine):
    small = machine.changed({"core_group.memory": f"{0.05 * 4 * EXPERTS.parameters.total / 1e9} GB"})
    with pytest.raises(athanor.DoesNotFit, match="--offload experts"):
        infer(small, EXPERTS)
    table = machine.model_dump(mode="json")
    table["node"]["host_memory"] = "0.1 GB"
    with pytest.raises(athanor.DoesNotFit, match="does not fit the hosts"):
        infer(Machine.model_validate(table), EXPERTS, offload="experts")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": 0}, "--prompt 0"),
        ({"mesh": {"pp": 2}}, "meshes of tp, ep and dp"),
        ({"offload": "experts"}, "the model has no experts"),
        ({"offload": "experts:2", "model": EXPERTS}, "above 0 and at most 1"),
    ],
)
def test_bad_input(machine, options, message):
    with pytest.raises(athanor.InputError, match=message):
        infer(machine, **options)
