"""Named slow cards: between none and all of them slow, alike at every depth, and refused where no node is meant."""

import pytest
from athanor import simulate
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.workloads.plan.plan import Plan

CLUSTER = {"machine": "cluster-64", "model": "moda-tiny", "mesh": "ep=4,dp=2", "ranks_per_node": 1}


def step(**options):
    return simulate(**{**CLUSTER, **options}).summary()["step_seconds"]


def halved(share):
    rate = load_machine("cluster-64").node.interface_bandwidth * share
    return load_machine("cluster-64").changed({"node.interface_bandwidth": rate})


@pytest.mark.parametrize("depth", ["fluid", "message"])
def test_one_slow_card_costs_no_more_than_all_of_them(depth):
    none, one, two, all_slow = (
        step(depth=depth, slow_links=named)
        for named in ("none", "3:0.25", "3:0.25,5:0.5", ",".join(f"{node}:0.25" for node in range(8)))
    )
    assert none < one
    assert one < two * (1 + 1e-9)
    assert two < all_slow * (1 + 1e-9)
    assert step(depth=depth, slow_links="3:1") == none


def test_where_all_are_slow_the_machine_has_slower_cards():
    named = ",".join(f"{node}:0.5" for node in range(8))
    supernodes = simulate(**{**CLUSTER, "machine": halved(0.5)}).summary()
    assert step(slow_links=named) == pytest.approx(supernodes["step_seconds"], rel=0.02)


def test_an_all_to_all_waits_for_the_slow_card():
    """With linear all-to-alls a rank sends at once to all: the slow one's sends and receipts take four times as long."""
    exposed = [
        simulate(**CLUSTER, slow_links=named).summary()["breakdown"]["all_to_all"] for named in ("none", "0:0.25")
    ]
    assert 2.0 < exposed[1] / exposed[0] <= 4.01


def test_nodes_that_hold_no_rank_do_not_matter():
    assert step(slow_links="60:0.1") == step()


def test_many_ranks_are_all_taken_as_slow_and_that_is_said():
    found = simulate("sunway-oceanlight", "moda-tiny", mesh="ep=4,dp=256", slow_links="0:0.5").summary()
    assert any("as slow as the slowest" in each for each in found["warnings"])


@pytest.mark.parametrize("text", ["3", "3:0", "3:1.5", "-1:0.5", "a:0.5", "3:0.5,3:0.25"])
def test_what_names_no_share_is_refused(text):
    with pytest.raises(InputError, match="--slow-links"):
        Plan(mesh={"dp": 1}, slow_links=text).check()


def test_a_node_that_the_machine_lacks_is_refused():
    with pytest.raises(InputError, match="has nodes 0 to 63"):
        step(slow_links="64:0.5")
