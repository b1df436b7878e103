"""What no plan may break: a link carries no more than it can, whatever the plan."""

import random

import athanor
import pytest
from athanor.hardware.errors import InternalError
from athanor.hardware.machine import load_machine
from athanor.sim import simulate as simulation
from athanor.workloads.model.model import Model, load_model

MACHINES = ("cluster-64", "dgx1-v100", "laptop")
DENSE = Model(**{**load_model("gpt-tiny").model_dump(), "plan": {}, "layers": 2})
EXPERTS = Model(**{**load_model("moda-tiny").model_dump(), "plan": {}, "layers": 2})
WAYS = {
    "zero": ["0", "1", "2", "3"],
    "overlap": ["none", "gradients", "all"],
    "recompute": ["none", "full"],
    "pipeline": ["gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "pipedream"],
    "micro_batch": [1, 2],
    "sequence_parallel": [False, True],
    "router": ["uniform", "zipf:1.0"],
    "balancer": ["none", "even", "swipe"],
    "jitter": [0.0, 0.0, 0.1],
    "depth": ["auto", "bound", "links", "fluid"],
    "global_batch": [8, 16],
}


def drawn(random):
    """A machine, a model and options: most are plans."""
    model = random.choice([DENSE, EXPERTS])
    options = {name: random.choice(values) for name, values in WAYS.items()}
    axes = ["dp", "tp", "pp", "ep"] if model is EXPERTS else ["dp", "tp", "pp"]
    mesh = {axis: size for axis in axes if (size := random.choice([1, 2, 4])) > 1} or {"dp": 2}
    options["chunks"] = 2 if options["pipeline"] == "interleaved" and "pp" in mesh else 1
    slower = {
        "node.interface_bandwidth": load_machine("cluster-64").node.interface_bandwidth * random.choice([1, 0.01])
    }
    machine = random.choice(MACHINES)
    return load_machine(machine).changed(slower) if machine == "cluster-64" else machine, model, mesh, options


@pytest.mark.parametrize("seed", range(5))
def test_no_link_of_any_plan_carries_more_than_it_can(seed):
    """Five hundred random plans: what simulates does so without an internal error, and uses are shares."""
    draw, done = random.Random(seed), 0
    for _ in range(100):
        machine, model, mesh, options = drawn(draw)
        try:
            run = athanor.simulate(machine, model, mesh=mesh, allow_overcommit=True, **options)
        except athanor.AthanorError:
            continue
        done += 1
        assert all(0 <= link["max_utilisation"] <= 1 + simulation.ROUNDING for link in run.summary()["links"])
    assert done > 25


def test_a_link_that_did_too_much_is_told(monkeypatch):
    """With a plan and a link in its message, so that it can be mended."""
    monkeypatch.setattr(simulation, "ROUNDING", -0.9999)
    with pytest.raises(InternalError, match=r"(?s)nic.*which no link does.*gpt-tiny on cluster-64"):
        athanor.simulate("cluster-64", DENSE, mesh={"dp": 8}, global_batch=16)


@pytest.mark.parametrize(("chunks", "card"), [(4, 8.82), (2, 4.41)])
def test_hand_overs_of_many_chunks_take_what_their_cards_need(chunks, card):
    """64 micro-batches of GPT-3 6.7B through eight nodes with one card each: bytes over bandwidth, by hand."""
    run = athanor.simulate(
        "dgx1-v100",
        "gpt3-6.7b",
        mesh={"tp": 8, "pp": 8},
        global_batch=64,
        micro_batch=1,
        pipeline="interleaved",
        chunks=chunks,
        precision="O2",
        zero="0",
        allow_overcommit=True,
    )
    assert run.summary()["step_seconds"] >= card
