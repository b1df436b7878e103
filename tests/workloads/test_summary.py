"""The summary of a run: what its numbers have to do with each other, whoever ran the steps."""

import athanor
import numpy as np
import pytest
from athanor.workloads.schedule.operation import CATEGORIES, PHASES
from pytest import approx
from support.strategies import DENSE, EXPERTS, flat, plan

RUNS = {
    "dense": (DENSE, {"mesh": {"dp": 2, "tp": 2}, "zero": "1"}),
    "experts": (EXPERTS, {"mesh": {"ep": 4}, "balancer": "none", "router": "zipf:1.0", "steps": 3, "drift": 0.3}),
    "stages": (DENSE, {"mesh": {"pp": 2, "dp": 2}, "tokens_per_rank": 128, "micro_batch": 1}),
    "half": (DENSE, {"mesh": {"dp": 4}, "precision": "O2", "jitter": 0.1, "steps": 2}),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    """The options of a run, and its summary."""
    model, options = RUNS[request.param]
    return options, athanor.simulate(flat(), model, **plan(**options)).summary()


def test_rates_are_amounts_by_seconds(run):
    _, summary = run
    seconds, flops = summary["step_seconds"], summary["flops_per_step"]
    assert seconds == approx(np.mean(summary["each_step_seconds"]))
    assert summary["flops_per_second"] == approx(flops / seconds)
    replicas = {"dp": 1, "ep": 1, **summary["mesh"]}
    tokens = replicas["dp"] * replicas["ep"] * summary["tokens_per_rank"]
    assert summary["tokens_per_second"] == approx(tokens / seconds)


def test_the_share_of_the_peak_is_of_all_ranks(run):
    options, summary = run
    used = "fp16" if options.get("precision") == "O2" else "fp32"
    assert summary["peak_fraction"] == approx(
        summary["flops_per_second"] / (summary["ranks"] * flat().core_group.peak[used])
    )


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
