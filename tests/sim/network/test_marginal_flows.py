"""All-to-alls by the legs of routes: on every link the bytes of single messages, and the end of every group."""

import numpy as np
import pytest
from athanor import simulate
from athanor.hardware.errors import DoesNotFit
from athanor.hardware.machine import Machine, load_machine
from athanor.sim.network.marginal_flows import MarginalFlows
from athanor.sim.network.phases import phases_by_route
from athanor.sim.network.phases.phases_by_route import ByRoute
from athanor.sim.network.routes import Flows, all_pairs
from athanor.sim.network.topology import Graph
from athanor.workloads.lowering import simulator_memory
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import Layout
from athanor.workloads.model.model import load_model
from hypothesis import given
from hypothesis import strategies as st
from support.fabrics import dragonfly, rails, torus
from support.machines import tree
from support.paths import MACHINE_FILES

FABRICS = [
    torus(4, 4),
    torus(3, 4, 2),
    dragonfly(4, 2, 2, 2),
    dragonfly(2, 3, 2, 2),
    dragonfly(3, 3, 2, 2),
    rails(4, 4),
]
"""With all fabrics that have legs: odd and even rings, one and several cables between groups."""

WITHOUT = [dragonfly(4, 2, 2, 2, "valiant"), rails(4, 4, "spine")]

FILES = {path.stem: path for path in MACHINE_FILES}


def nodes_of(fabric):
    """Nodes of a whole fabric: as many as its legs tell of, or as its first domains hold."""
    legs = fabric.legs(1)
    return len(legs[0].source) if legs else 16


def machine_with(fabric, inside="ring"):
    plain = tree(core_groups=2, ring=15.0, inside=inside, nodes=nodes_of(fabric)).model_dump()
    return Machine.model_validate({**plain, "fabric": fabric})


@pytest.mark.parametrize("fabric", FABRICS, ids=lambda fabric: f"{fabric.kind}-{nodes_of(fabric)}")
def test_legs_are_the_routes(fabric):
    """For every pair of nodes, and whoever of those with the same labels stands for them; nobody has a way to himself."""
    count = nodes_of(fabric)
    source, target = (each.reshape(-1) for each in np.indices((count, count)))
    apart = source != target
    legs = [leg.links(source, target) for leg in fabric.legs(count)]
    for links in legs:
        assert (links[~apart] < 0).all()
    found = np.sort(np.concatenate([links[apart] for links in legs], axis=1), axis=1)
    expected = np.sort(fabric.routes(source[apart], target[apart], count), axis=1)
    width = max(found.shape[1], expected.shape[1])
    found, expected = (
        np.pad(each, ((0, 0), (width - each.shape[1], 0)), constant_values=-1) for each in (found, expected)
    )
    assert (found == expected).all()
    for leg, links in zip(fabric.legs(count), legs, strict=True):
        labels = leg.source[source] * (int(leg.target.max()) + 1) + leg.target[target]
        _, first, number = np.unique(labels, return_index=True, return_inverse=True)
        assert (links == links[first][number.reshape(-1)]).all()


@pytest.mark.parametrize("fabric", WITHOUT, ids=lambda fabric: fabric.routing)
def test_ways_of_their_own_have_no_legs(fabric):
    assert fabric.legs(16) is None


@given(st.data())
def test_bytes_and_ends_are_those_of_single_messages(data):
    """Groups anywhere, also several ranks on a node and groups on a single one, and ranks that send or receive nothing."""
    machine = machine_with(data.draw(st.sampled_from(FABRICS)), data.draw(st.sampled_from(["ring", "switch"])))
    count, size = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 5))
    node = data.draw(st.lists(st.integers(0, machine.nodes - 1), min_size=count * size, max_size=count * size))
    amount = st.sampled_from([0.0, 0.5, 1.0, 3.0, 1e9])
    sent, share = (
        np.array(data.draw(st.lists(amount, min_size=count * size, max_size=count * size))).reshape(count, size)
        for _ in range(2)
    )
    mesh = Mesh.of({"dp": count, "ep": size})
    layout = Layout(mesh, np.array(node), 2, machine.nodes, machine.supernode)
    graph, groups = Graph.of(machine, layout), np.arange(count * size).reshape(count, size)
    made = MarginalFlows.of(graph, groups)
    assert made is not None
    loads, ends = made.loads_and_ends(sent, share)
    flows = Flows.of_all_pairs(graph, groups)
    nbytes = (sent[:, :, None] * share[:, None, :])[:, ~np.eye(size, dtype=bool)].reshape(-1)
    expected = flows.loads(nbytes)
    assert loads == pytest.approx(expected, rel=1e-12, abs=1e-12 * expected.max(initial=0.0))
    worst = flows.worst(nbytes, expected / graph.capacity, count)
    assert (worst if ends is None else ends) == pytest.approx(worst, rel=1e-9)
    if ends is None:
        assert np.ptp(worst) <= 1e-9 * worst.max()


@pytest.mark.parametrize(
    ("name", "changes"),
    [("torus-8x8x8", {"fabric.shape": [4, 4, 4], "nodes": 64}), ("dragonfly-1056", {}), ("rails-256", {})],
)
def test_a_step_by_marginals_is_that_of_all_pairs(name, changes, monkeypatch):
    machine = load_machine(FILES[name]).changed(changes)
    model = load_model("moda-tiny").with_experts(32)
    plan = {"mesh": {"ep": 32, "dp": 2}, "router": "zipf:1.0", "balancer": "none", "allow_overcommit": True}
    made = simulate(machine, model, **plan).summary()
    assert made["network"]["depth"] == "links"
    monkeypatch.setattr(MarginalFlows, "of", classmethod(lambda cls, graph, groups: None))
    exact = simulate(machine, model, **plan).summary()
    assert made["step_seconds"] == pytest.approx(exact["step_seconds"], rel=1e-12)
    for one, other in zip(made["links"], exact["links"], strict=True):
        assert one["bytes_per_step"] == pytest.approx(other["bytes_per_step"], rel=1e-12)
        assert one["max_utilisation"] == pytest.approx(other["max_utilisation"], rel=1e-12)


def test_too_many_pairs_are_refused_with_a_way_out_and_auto_takes_it(monkeypatch):
    monkeypatch.setattr(simulator_memory, "MOST_PAIRS", 5_000)
    machine = load_machine(FILES["dragonfly-1056"])
    model, plan = load_model("moda-tiny").with_experts(96), {"mesh": {"ep": 96, "dp": 1}}
    with pytest.raises(
        DoesNotFit, match=r"9,120 pairs of ranks, .* 5,000 can be; --depth links adds them up by the parts"
    ):
        simulate(machine, model, depth="fluid", **plan)
    found = simulate(machine, model, **plan).summary()
    assert found["network"]["depth"] == "links"
    assert found["step_seconds"] == simulate(machine, model, depth="links", **plan).summary()["step_seconds"]
    for depth in ("links", "fluid", "auto"):
        with pytest.raises(DoesNotFit, match="--routing minimal with --depth links adds them up"):
            simulate(machine, model, depth=depth, routing="valiant", **plan)


def test_of_very_many_pairs_some_senders_tell_the_farthest(monkeypatch):
    """On a whole torus every sender sees the same; elsewhere less may be seen, but never more."""
    for fabric, whole in ((torus(4, 4), True), (rails(4, 4), True), (dragonfly(4, 2, 2, 2), False)):
        machine = machine_with(fabric)
        mesh = Mesh.of({"ep": machine.nodes})
        graph = Graph.of(machine, Layout(mesh, np.arange(machine.nodes), 2, machine.nodes, machine.supernode))
        groups, phases = np.arange(machine.nodes)[None, :], ByRoute(graph, "links")
        exact = phases.farthest(groups)
        with monkeypatch.context() as patch:
            patch.setattr(phases_by_route, "MOST_PAIRS", 100)
            some = phases.farthest(groups)
        assert some == exact if whole else some <= exact
    pairs = [each for part in all_pairs(np.arange(6).reshape(2, 3), 2) for each in np.column_stack(part).tolist()]
    assert pairs == [[0, 0, 1], [0, 0, 2], [0, 2, 0], [0, 2, 1], [1, 3, 4], [1, 3, 5], [1, 5, 3], [1, 5, 4]]
