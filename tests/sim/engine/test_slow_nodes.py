"""Nodes that are named as slow."""

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.sim.engine.noise import Noise
from athanor.workloads.plan.setting import Setting

OPTIONS = {"mesh": {"ep": 4, "dp": 2}, "balancer": "even", "tokens_per_rank": 64}


def step(**options):
    return athanor.simulate("cluster-64", "moda-tiny", **{**OPTIONS, **options}).summary()


def test_others_wait_for_a_node_that_is_named_as_slow():
    plain, slow, other, both = (
        step(**each) for each in ({}, {"slow_nodes": "1:1.5"}, {"slow_nodes": "2:1.5"}, {"slow_nodes": "1:1.5,2:1.2"})
    )
    assert slow["step_seconds"] == other["step_seconds"] == both["step_seconds"]
    computing = plain["breakdown"]["compute"] + plain["breakdown"]["optimizer"]
    assert slow["step_seconds"] - plain["step_seconds"] == pytest.approx(0.5 * computing, rel=0.02)
    assert slow["breakdown"]["imbalance"] > both["breakdown"]["imbalance"] > plain["breakdown"]["imbalance"]
    assert slow["breakdown"]["compute"] == pytest.approx(plain["breakdown"]["compute"] * (1 + 0.5 / 8))


def test_named_nodes_and_drawn_speeds_multiply():
    plain, slow = (
        Noise.of(
            Setting.of("cluster-64", "moda-tiny", {**OPTIONS, "speed_spread": 0.1, "slow_nodes": text}), 0
        ).slowness()
        for text in ("none", "3:2,5:0.5")
    )
    ratio = (slow / plain).reshape(-1)
    assert ratio.tolist() == pytest.approx([1, 1, 1, 2, 1, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("3", "--slow-nodes 3: write NODE:FACTOR, a node from 0 on and a factor above 0: 3:1.2"),
        ("x:1.2", "--slow-nodes x:1.2: write NODE:FACTOR"),
        ("1:0", "--slow-nodes 1:0: write NODE:FACTOR"),
        ("1:nan", "--slow-nodes 1:nan: write NODE:FACTOR"),
        ("1:2,1:3", "--slow-nodes 1:2,1:3: node 1 is named twice"),
        ("64:2", "--slow-nodes 64:2: node 64: cluster-64 has nodes 0 to 63"),
        ("9:2", "--slow-nodes 9:2: no rank of --mesh ep=4,dp=2 lives on node 9"),
    ],
)
def test_wrong_slow_nodes(text, line):
    with pytest.raises(InputError) as caught:
        step(slow_nodes=text)
    assert str(caught.value).startswith(line)
