"""Laws of random plans: a bound is below what it bounds, and faster links never lengthen a step."""

from __future__ import annotations

import random
from itertools import pairwise

import athanor
import pytest
from athanor.hardware.machine import load_machine


def drawn(draw):
    """A small plan, its ranks unequal or not."""
    stages, experts, replicas = draw.choice([1, 1, 2]), draw.choice([1, 2, 4]), draw.choice([1, 2, 3])
    options = {
        "machine": draw.choice(["selene", "cluster-64", "dgx1-v100"]),
        "model": "moda-tiny",
        "mesh": f"dp={replicas},ep={experts},pp={stages}",
        "global_batch": replicas * experts * stages * draw.choice([1, 2]),
        "micro_batch": 1,
        "zero": draw.choice(["0", "1"]),
        "overlap": draw.choice(["none", "gradients", "all"]),
        "router": draw.choice(["uniform", "zipf:1.0"]),
        "balancer": "none",
        "jitter": draw.choice([0.0, 0.1]),
    }
    return options | ({"pipeline": draw.choice(["gpipe", "1f1b", "zb-h1"])} if stages > 1 else {})


@pytest.mark.parametrize("seed", range(3))
def test_no_depth_is_below_the_bound(seed):
    draw, ratios = random.Random(seed), []
    for _ in range(4):
        options = drawn(draw)
        # Between experts messages carry other bytes: they know which token goes where.
        same = "pipeline" not in options and "ep=1" in options["mesh"]
        depths = ["fluid", "message"] if same else ["fluid"]
        least = athanor.simulate(**options, depth="bound", allow_overcommit=True).summary()["step_seconds"]
        for depth in depths:
            run = athanor.simulate(**options, depth=depth, allow_overcommit=True)
            ratios.append(least / run.summary()["step_seconds"])
            assert ratios[-1] <= 1 + 1e-9, (options, depth)
    assert max(ratios) > 0.5, "it says something"


def test_jitter_speeds_no_rank_of_a_stage_up():
    """Ranks that differ once ended a block sooner than they can, where its messages shared cards."""
    options = {"model": "moda-tiny", "mesh": "dp=1,ep=2,pp=2", "global_batch": 4, "micro_batch": 1, "jitter": 0.1}
    least, shared = (
        athanor.simulate("cluster-64", **options, zero="1", overlap="gradients", depth=depth).summary()["step_seconds"]
        for depth in ("bound", "fluid")
    )
    assert least <= shared


@pytest.mark.parametrize("key", ["node.interface_bandwidth", "node.ring_bandwidth"])
def test_faster_links_never_lengthen_a_step(key):
    """By nothing but what latencies of messages differ by, which is nothing in these plans."""
    draw = random.Random(11)
    for _ in range(2):
        options = drawn(draw)
        machine, seconds = load_machine(options.pop("machine")), []
        node = machine.node.model_dump()
        for factor in (0.1, 1.0, 4.0):
            faster = machine.changed({key: factor * node[key.removeprefix("node.")]})
            run = athanor.simulate(faster, **options, depth="fluid", allow_overcommit=True)
            seconds.append(run.summary()["step_seconds"])
        assert all(later <= before * (1 + 1e-9) for before, later in pairwise(seconds)), options
