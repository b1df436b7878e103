"""Slow links of supernodes to others, as a failed cable leaves them: between none and all, alike at every depth."""

import pytest
from athanor import simulate
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.workloads.plan.plan import Plan
from support.machines import tree

SPREAD = {"mesh": "ep=4,dp=2", "placement": "ep=supernode,dp=node", "ranks_per_node": 1, "balancer": "even"}
"""Experts lie on four supernodes, so that all-to-alls pass their uplinks."""

MACHINE = tree(nodes=16, supernode=4, taper=0.25, injection=1e6, ring=4e6)


def step(**options):
    return simulate(MACHINE, "moda-tiny", allow_overcommit=True, **{**SPREAD, **options}).summary()


@pytest.mark.parametrize("depth", ["fluid", "message", "links"])
def test_one_slow_uplink_costs_no_more_than_all_of_them(depth):
    none, one, every = (
        step(depth=depth, slow_uplinks=named)["step_seconds"]
        for named in ("none", "2:0.25", ",".join(f"{number}:0.25" for number in range(4)))
    )
    assert none * 1.05 < one <= every * (1 + 1e-9)
    assert step(depth=depth, slow_uplinks="2:1")["step_seconds"] == none


def test_where_all_are_slow_the_machine_is_as_tapered():
    named = ",".join(f"{number}:0.5" for number in range(4))
    thin = MACHINE.changed({"fabric.taper": 0.125})
    expected = simulate(thin, "moda-tiny", allow_overcommit=True, **SPREAD).summary()["step_seconds"]
    assert step(slow_uplinks=named)["step_seconds"] == pytest.approx(expected, rel=1e-9)


def test_exchanges_within_supernodes_do_not_mind():
    inside = {"mesh": "ep=4", "placement": "ep=node"}
    assert step(**inside, slow_uplinks="0:0.1")["step_seconds"] == step(**inside)["step_seconds"]


def test_supernodes_without_ranks_do_not_matter():
    inside = {"mesh": "ep=2,dp=2", "placement": "ep=supernode,dp=node"}
    assert step(**inside, slow_uplinks="3:0.1")["step_seconds"] == step(**inside)["step_seconds"]


def test_of_many_ranks_all_are_taken_as_slow_and_that_is_said_but_no_step_is_longer_than_its_bound():
    many = {"mesh": "ep=4,dp=256", "slow_uplinks": "0:0.5"}
    found = simulate("sunway-oceanlight", "moda-tiny", **many).summary()
    assert any("uplinks of all supernodes are taken to be as slow" in each for each in found["warnings"])
    plain, bound = (
        simulate("sunway-oceanlight", "moda-tiny", mesh=many["mesh"], depth=depth).summary()
        for depth in ("auto", "bound")
    )
    assert plain["step_seconds"] <= found["step_seconds"]
    least = simulate("sunway-oceanlight", "moda-tiny", **many, depth="bound").summary()
    assert least["step_seconds"] == bound["step_seconds"], "of one slow uplink nobody knows that it holds the step up"


@pytest.mark.parametrize("text", ["3", "3:0", "3:1.5", "-1:0.5", "a:0.5", "3:0.5,3:0.25"])
def test_what_names_no_share_is_refused(text):
    with pytest.raises(InputError, match="--slow-uplinks"):
        Plan(mesh={"dp": 1}, slow_uplinks=text).check()


def test_supernodes_and_uplinks_that_a_machine_lacks_are_refused():
    with pytest.raises(InputError, match="supernode 4: test-tree has supernodes 0 to 3"):
        step(slow_uplinks="4:0.5")
    with pytest.raises(InputError, match=r"fugaku is no tree of switches \(torus\)"):
        simulate(load_machine("fugaku"), "moda-tiny", mesh="ep=4", slow_uplinks="0:0.5")
