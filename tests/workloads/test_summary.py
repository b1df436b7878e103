"""The summary of a run: what its numbers have to do with each other, whoever ran the steps."""

import athanor
import numpy as np
import pytest
from athanor.workloads.schedule.operation import CATEGORIES, PHASES
from pytest import approx
from support.strategies import BOTH, DENSE, EXPERTS, GATED, LATENT, SHARED, flat, lowered, plan

LENGTH = 32

RUNS = {
    "dense": (DENSE, {"mesh": {"dp": 2, "tp": 2}, "zero": "1"}),
    "experts": (EXPERTS, {"mesh": {"ep": 4}, "balancer": "none", "router": "zipf:1.0", "steps": 3, "drift": 0.3}),
    "stages": (DENSE, {"mesh": {"pp": 2, "dp": 2}, "tokens_per_rank": 128, "micro_batch": 1}),
    "dropping": (EXPERTS, {"mesh": {"ep": 4}, "balancer": "capacity:1.0", "router": "zipf:1.0"}),
    "half": (DENSE, {"mesh": {"dp": 4}, "precision": "O2", "jitter": 0.1, "steps": 2}),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    """The options of a run, and its summary."""
    model, options = RUNS[request.param]
    return options, athanor.simulate(flat(), model, **plan(**options)).summary()


def test_rates_are_amounts_by_seconds(run):
    options, summary = run
    seconds, flops = summary["step_seconds"], summary["flops_per_step"]
    assert seconds == approx(np.mean(summary["each_step_seconds"]))
    assert summary["flops_per_second"] == approx(flops / seconds)
    replicas = {"dp": 1, "ep": 1, **summary["mesh"]}
    tokens = replicas["dp"] * replicas["ep"] * summary["tokens_per_rank"]
    assert summary["tokens_per_second"] + summary["dropped_tokens_per_second"] == approx(tokens / seconds)
    dropped = summary["load_balance"]["dropped_fraction"]
    assert summary["dropped_tokens_per_second"] == approx(dropped * tokens / seconds)
    assert (dropped > 0) == (options.get("balancer") == "capacity:1.0")


def test_the_share_of_the_peak_is_of_all_ranks(run):
    options, summary = run
    used = "fp16" if options.get("precision") == "O2" else "fp32"
    assert summary["peak_fraction"] == approx(
        summary["flops_per_second"] / (summary["ranks"] * flat().core_group.peak[used])
    )
    assert summary["hfu"] == summary["peak_fraction"]
    share = summary["model_flops_per_step"] / summary["flops_per_step"]
    assert summary["mfu"] == approx(share * summary["hfu"])
    assert 0 < summary["mfu"] < summary["hfu"], "norms and updates are computed, and are no FLOPs of the model"


@pytest.mark.parametrize("model", [DENSE, GATED, LATENT, EXPERTS, SHARED, BOTH], ids=lambda model: model.name)
def test_model_flops_are_those_of_a_schedule_that_repeats_nothing(model):
    """Products of a step whose attention is unfused, but for the scores that a mask hides; recomputation changes nothing."""
    totals = [
        athanor.simulate(flat(), model, **plan(mesh={"dp": 2}, recompute=each)).summary()
        for each in ("none", "selective", "full")
    ]
    assert len({each["model_flops_per_step"] for each in totals}) == 1
    assert totals[0]["hfu"] * totals[0]["step_seconds"] < totals[2]["hfu"] * totals[2]["step_seconds"]
    schedule = lowered(model, mesh={"dp": 2})
    hidden = 0.0
    for layer in model.stack:
        length = model.decoder_seq_len or LENGTH if not layer.encoder else LENGTH
        unseen = (length - 1) / 2 if model.is_causal(layer) else 0.0
        tokens = 2 * 64 * length / LENGTH
        hidden += 3 * 2 * tokens * unseen * model.heads * (model.query_size + model.value_size)
    made = sum(schedule.product_flops().values()) - hidden
    assert totals[0]["model_flops_per_step"] == approx(made)


def test_dropped_tokens_are_no_work_of_the_model():
    even, dropping = (
        athanor.simulate(flat(), EXPERTS, **plan(mesh={"ep": 4}, router="zipf:1.0", balancer=each)).summary()
        for each in ("even", "capacity:1.0")
    )
    missing = even["model_flops_per_step"] - dropping["model_flops_per_step"]
    copies = 4 * 64 * EXPERTS.top_k * dropping["load_balance"]["dropped_fraction"]
    assert missing == approx(3 * 2 * copies * EXPERTS.moe_layers * EXPERTS.expert_width * EXPERTS.hidden * 2)


@pytest.mark.parametrize(
    ("precision", "steps", "expected"),
    [
        ("fp8", 1, lambda peak, _: peak["fp8"]),
        ("bf16", 1, lambda peak, _: peak["bf16"]),
        ("O0:1,bf16", 2, lambda peak, _: 2 / (1 / peak["fp32"] + 1 / peak["bf16"])),
        ("layerwise", 1, lambda peak, of: sum(of.values()) / sum(flops / peak[kind] for kind, flops in of.items())),
    ],
)
def test_the_peak_is_that_of_the_precision_that_ran(precision, steps, expected):
    """Eight bits by the peak of eight bits; several formats by the FLOPs of the products in each."""
    peak = {"fp32": 1e9, "bf16": 4e9, "fp16": 4e9, "fp8": 8e9}
    machine = flat().model_copy(update={"core_group": flat().core_group.model_copy(update={"peak": peak})})
    options = {"mesh": {"dp": 2}, "precision": precision, "steps": steps}
    summary = athanor.simulate(machine, DENSE, **plan(**options)).summary()
    found = summary["flops_per_second"] / summary["hfu"] / summary["ranks"]
    products = lowered(DENSE, **options).product_flops() if steps == 1 and precision != "fp8" else {}
    assert len(products) == (2 if precision == "layerwise" else 1 if steps == 1 and precision != "fp8" else 0)
    assert found == approx(expected(peak, products))


def test_every_second_is_accounted_for(run):
    """By category, by phase and by both; in each step and in the mean."""
    _, summary = run
    both = summary["breakdown_by_phase"]
    assert set(both) == set(PHASES) == set(summary["phases"])
    for category in CATEGORIES:
        assert summary["breakdown"][category] == approx(sum(both[phase][category] for phase in PHASES))
        assert summary["breakdown"][category] == approx(np.mean(summary["each_step_breakdown"][category]))
    for phase in PHASES:
        assert summary["phases"][phase] == approx(sum(both[phase].values()))
        assert summary["phases"][phase] == approx(np.mean(summary["each_step_phases"][phase]))
    for which in ("each_step_phases", "each_step_breakdown"):
        totals = np.sum(list(summary[which].values()), axis=0)
        assert totals == approx(summary["each_step_seconds"])
    assert sum(summary["breakdown"].values()) == approx(summary["step_seconds"])


def cautions(**options):
    return athanor.simulate(flat(**options.pop("machine", {})), DENSE, **plan(**options)).summary()["warnings"]


def test_a_part_of_a_sequence_is_cautioned_of():
    found = cautions(mesh={"dp": 2}, tokens_per_rank=48)
    assert [text for text in found if "48 tokens is no whole number of sequences of 32" in text]
    assert not [text for text in cautions(mesh={"dp": 2}) if "whole number" in text]


def test_nodes_with_room_to_spare_are_cautioned_of():
    machine = {"nodes": 4, "supernode": 4, "core_groups": 4}
    found = cautions(machine=dict(machine), mesh={"dp": 6}, ranks_per_node=4)
    assert [text for text in found if "6 ranks stand on 2 nodes that have room for 4 each" in text]
    full = cautions(machine=dict(machine), mesh={"dp": 8}, ranks_per_node=4)
    assert not [text for text in full if "have room for" in text]


def test_numbers_without_a_source_are_counted():
    machine = flat()
    for left, text in (
        ({"nodes", "core_group", "node"}, "fabric"),
        ({"nodes", "core_group", "node", "fabric"}, "calibration"),
    ):
        bare = machine.model_copy(update={"sources": dict.fromkeys(left, "made up")})
        (found,) = [
            each
            for each in athanor.simulate(bare, DENSE, **plan(mesh={"dp": 2})).summary()["warnings"]
            if "no source" in each
        ]
        missing = bare.unsourced()
        assert missing[0].startswith(text)
        assert found == f"test-tree gives no source for {missing[0]} and {len(missing) - 1} more"
