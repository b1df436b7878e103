"""The network: max-min laws, the pruned tree's facts, SimGrid's times, and the most loaded link below the fluid."""

import csv

import numpy as np
import pytest
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.hardware.machine import load_machine
from athanor.reports.studies.reproductions.bagualu.facts import uplink_share
from athanor.sim.network.links import LinkLoads
from athanor.sim.network.maxmin import fair_rates
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.work import Exchange
from hypothesis import given
from hypothesis import strategies as st
from oracles.naive_network import max_min
from support.machines import tree
from support.paths import DATA

ORACLE = list(csv.DictReader((DATA / "simgrid.csv").read_text().splitlines()))
PLAIN = [row for row in ORACLE if row["network_model"] == "CM02"]


@st.composite
def problems(draw):
    """Random usage [flows, links] with at least one link a flow, and capacities."""
    flows, links = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    routes = [draw(st.sets(st.integers(0, links - 1), min_size=1)) for _ in range(flows)]
    usage = np.array([[float(link in route) for link in range(links)] for route in routes])
    return usage, np.array([float(draw(st.integers(1, 20))) for _ in range(links)])


@given(problems())
def test_rates_equal_naive_progressive_filling(problem):
    usage, capacity = problem
    routes = [[link for link in range(len(capacity)) if row[link]] for row in usage]
    expected = max_min(routes, dict(enumerate(capacity)))
    assert fair_rates(usage, capacity, np.ones(len(usage))) == pytest.approx(expected, rel=1e-9)


@given(problems(), st.data())
def test_every_flow_has_a_bottleneck_and_no_link_is_overfull(problem, data):
    usage, capacity = problem
    weight = np.array([float(data.draw(st.integers(1, 5))) for _ in usage])
    rates = fair_rates(usage, capacity, weight)
    used = rates @ usage
    assert (used <= capacity * (1 + 1e-9)).all()
    for flow, row in enumerate(usage):
        assert any(
            used[link] >= capacity[link] * (1 - 1e-9)
            and rates[flow] / weight[flow] >= (rates / weight)[usage[:, link] > 0].max() * (1 - 1e-9)
            for link in np.flatnonzero(row)
        )


@given(problems(), st.integers(0, 7))
def test_splitting_a_class_in_two_changes_nothing(problem, which):
    """Two flows of one class are the same as one row that counts two."""
    usage, capacity = problem
    twice = np.vstack([usage, usage[which % len(usage)]])
    counted = usage.copy()
    counted[which % len(usage)] *= 2
    separate = fair_rates(twice, capacity, np.ones(len(twice)))
    together = fair_rates(counted, capacity, np.ones(len(usage)))
    assert separate[: len(usage)] == pytest.approx(together, rel=1e-9)


@pytest.mark.parametrize(("flows", "share"), [(1, 1.0), (48, 1.0), (96, 0.5), (256, 3 / 16)])
def test_pruning_of_oceanlight(flows, share):
    assert uplink_share(load_machine("sunway-oceanlight"), flows) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("depth", ["fluid", "links"])
@pytest.mark.parametrize(("senders", "share"), [(48, 1.0), (96, 0.5), (256, 3 / 16)])
def test_senders_out_of_a_supernode_share_its_uplinks(senders, share, depth):
    """The same fact through a real collective: pairs of ranks in two supernodes exchange halves."""
    machine = load_machine("sunway-oceanlight").changed(
        {"calibration.message_overhead": "0 s", "fabric.latency_top": "0 s"}
    )
    mesh, exchange = Mesh.of({"ep": 2, "dp": senders}), Exchange("reduce-scatter", "ring", ("ep",), 2e9, "fp32")
    seconds = seconds_of(machine, mesh, {"ep": "supernode", "dp": "node"}, exchange, depth)
    assert 1e9 / machine.injection / seconds == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize(
    "row",
    PLAIN,
    ids=lambda row: "-".join(row[key] for key in ("platform", "algorithm", "ranks", "hosts_per_supernode")),
)
@pytest.mark.parametrize("depth", ["fluid", "links"])
def test_simgrid(row, depth):
    """SimGrid 4.0's times of all-to-alls and of a ring (plain max-min, no message overhead), within 1e-6.

    Its ranks do not wait for each other between steps, as phases do. That shows in one case, where pairs that share a cable
    fall behind the others: within 2 %. The message depth has it exactly (``test_collective_command.py``).
    """
    hosts, ranks, nbytes = int(row["hosts_per_supernode"]), int(row["ranks"]), float(row["message_bytes"])
    machine = tree(
        nodes=ranks,
        supernode=hosts,
        taper=3 / 16 if hosts < ranks else 1.0,
        routing="static" if row["platform"] == "ft" else "adaptive",
        injection=12.5e9,
        latencies=(0.0, 2e-6, 4e-6),
    )
    if row["algorithm"] == "ring":
        exchange = Exchange("all-reduce", "ring", ("ep",), nbytes, "fp32")
    else:
        algorithm = {"all": "linear", "pairshift": "pairwise-shift", "pairxor": "pairwise-xor"}[row["algorithm"]]
        exchange = Exchange("all-to-all", algorithm, ("ep",), nbytes * ranks, "fp32")
    layout = place(Mesh.of({"ep": ranks}), machine, "moda")
    seconds = sum(
        float(np.max(transfer.group_seconds(transfer.demand.alone[0])[0]))
        for transfer in Traffic(machine, layout, depth).transfers(exchange)
    )
    drifting = (row["platform"], row["algorithm"]) == ("ft", "pairxor")
    assert seconds == pytest.approx(float(row["simulated_s"]), rel=0.02 if drifting else 1e-6)


def seconds_of(machine, mesh, placement, exchange, depth):
    traffic = Traffic(machine, place(mesh, machine, placement), depth)
    found = [transfer.group_seconds(transfer.demand.alone[0])[0] for transfer in traffic.transfers(exchange)]
    return float(sum(np.max(each) for each in found))


@given(st.data())
def test_the_most_loaded_link_is_never_above_fluid(data):
    mesh = Mesh.of({"ep": data.draw(st.integers(1, 6)), "dp": data.draw(st.integers(1, 3))})
    machine = tree(nodes=64, supernode=data.draw(st.integers(1, 4)), taper=data.draw(st.sampled_from([0.25, 0.5, 1.0])))
    sent = np.array(data.draw(st.lists(st.integers(0, 9), min_size=mesh.ranks, max_size=mesh.ranks)), dtype=float)
    received = np.array(data.draw(st.lists(st.integers(0, 9), min_size=mesh.ranks, max_size=mesh.ranks)), dtype=float)
    algorithm = data.draw(st.sampled_from(["linear", "pairwise-shift"]))
    exchange = Exchange(
        "all-to-all", algorithm, ("ep",), sent.reshape(mesh.shape), "fp32", received.reshape(mesh.shape)
    )
    placement = data.draw(st.sampled_from(["moda", "block:ep,dp", "block:dp,ep"]))
    links, fluid = (seconds_of(machine, mesh, placement, exchange, depth) for depth in ("links", "fluid"))
    assert links <= fluid * (1 + 1e-9)


@pytest.mark.parametrize("operation", ["all-to-all", "all-reduce"])
def test_depths_agree_where_contention_is_uniform(operation):
    mesh, machine = Mesh.of({"ep": 8, "dp": 4}), tree(nodes=64, supernode=4, taper=0.25)
    exchange = Exchange(operation, "two-level", ("ep",), 64.0, "fp32")
    links, fluid = (seconds_of(machine, mesh, "moda", exchange, depth) for depth in ("links", "fluid"))
    assert links == pytest.approx(fluid, rel=1e-12)


def test_taper_of_one_makes_across_equal_to_inside():
    mesh, exchange = Mesh.of({"ep": 4, "dp": 4}), Exchange("all-to-all", "linear", ("ep",), 64.0, "fp32")
    machine = tree(nodes=64, supernode=4, taper=1.0)
    inside, across = (
        seconds_of(machine, mesh, placement, exchange, "fluid")
        for placement in ({"ep": "node", "dp": "supernode"}, {"dp": "node", "ep": "supernode"})
    )
    assert inside == pytest.approx(across, rel=1e-12)


@pytest.mark.parametrize("depth", ["links", "fluid"])
@pytest.mark.parametrize("placement", ["moda", "opposite"])
def test_more_bandwidth_is_never_slower(depth, placement):
    mesh, exchange = Mesh.of({"ep": 6, "dp": 4}), Exchange("all-to-all", "linear", ("ep",), 64.0, "fp32")
    times = [
        seconds_of(tree(nodes=64, supernode=4, taper=0.5, injection=rate), mesh, placement, exchange, depth)
        for rate in (5.0, 10.0, 20.0)
    ]
    assert times[0] > times[1] > times[2]


def test_static_routing_of_256_hosts_is_an_eighth_slower():
    """256 destinations on 48 cables: six flows on some, five on others, where adaptive routing has 5 1/3 everywhere."""
    machine = load_machine("sunway-oceanlight").changed({"calibration.message_overhead": "0 s"})
    mesh, exchange = Mesh.of({"ep": 1024}), Exchange("all-to-all", "linear", ("ep",), 1e9, "fp32")
    adaptive, static = (
        seconds_of(machine.changed({"fabric.routing": routing}), mesh, "moda", exchange, "fluid")
        for routing in ("adaptive", "static")
    )
    assert static / adaptive == pytest.approx(1.125, rel=1e-4)


def test_message_overhead_bounds_a_linear_all_to_all():
    """At many ranks it is the number of messages that counts: P - 1 overheads, then latency."""
    machine = tree(nodes=64, supernode=4, overhead=1.0, latencies=(0.0, 0.5, 2.0))
    exchange = Exchange("all-to-all", "linear", ("ep",), 1e-6, "fp32")
    assert seconds_of(machine, Mesh.of({"ep": 64}), "moda", exchange, "fluid") == pytest.approx(63 * 1.0 + 2.0)
    two_level = Exchange("all-to-all", "two-level", ("ep",), 1e-6, "fp32")
    expected = (3 * 1.0 + 0.5) + (15 * 1.0 + 2.0)
    assert seconds_of(machine, Mesh.of({"ep": 64}), "moda", two_level, "fluid") == pytest.approx(expected)


def test_ranks_of_a_node_share_its_interface():
    """Six ranks a node send through one injection, and through the ring among themselves."""
    machine = tree(nodes=8, supernode=4, core_groups=6, ring=30.0, injection=10.0)
    across = Exchange("reduce-scatter", "ring", ("ep",), 2.0, "fp32")
    alone = seconds_of(machine, Mesh.of({"ep": 2}), "moda", across, "fluid")
    layout = place(Mesh.of({"dp": 6, "ep": 2}), machine, {"dp": "core_group", "ep": "node"}, 6)
    (transfer,) = Traffic(machine, layout, "fluid").transfers(across)
    assert transfer.group_seconds(transfer.demand.alone[0])[0] == pytest.approx(6 * alone)
    inside = Exchange("reduce-scatter", "ring", ("dp",), 6.0, "fp32")
    (transfer,) = Traffic(machine, layout, "fluid").transfers(inside)
    seconds, decided = transfer.group_seconds(transfer.demand.alone[0])
    assert (seconds, decided) == (pytest.approx(6 * 5.0 / 30.0), "ring")


def test_link_loads_conserve_bytes():
    """What leaves nodes enters nodes, and what leaves supernodes enters supernodes."""
    random = np.random.default_rng(1)
    mesh, machine = Mesh.of({"ep": 8, "dp": 3}), tree(nodes=64, supernode=4)
    for placement in ("moda", "block:ep,dp", "block:dp,ep"):
        traffic = Traffic(machine, place(mesh, machine, placement), "links")
        sent, received = random.uniform(0, 9, mesh.shape), random.uniform(0, 9, mesh.shape)
        (transfer,) = traffic.transfers(Exchange("all-to-all", "linear", ("ep",), sent, "fp32", received))
        share = received / received.sum(axis=0)
        assert transfer.loads.loads["nic.out"].sum() == pytest.approx((sent * (1 - share)).sum())
        for level in ("nic", "trunk"):
            assert transfer.loads.loads[f"{level}.out"].sum() == pytest.approx(
                transfer.loads.loads[f"{level}.in"].sum()
            )


@pytest.mark.parametrize("received", [False, True])
def test_pairwise_steps_carry_what_a_linear_all_to_all_does(received):
    """The same bytes on every link, one step after another."""
    random = np.random.default_rng(2)
    mesh, machine = Mesh.of({"ep": 8, "dp": 3}), tree(nodes=64, supernode=2, core_groups=2)
    traffic = Traffic(machine, place(mesh, machine, "block:ep,dp", 2), "links")
    sent, wanted = (random.uniform(0, 9, mesh.shape), random.uniform(0, 9, mesh.shape)) if received else (24.0, None)
    sums = []
    for algorithm in ("linear", "pairwise-shift", "pairwise-xor"):
        sums.append(LinkLoads(traffic.phases.kinds))
        for transfer in traffic.transfers(Exchange("all-to-all", algorithm, ("ep",), sent, "fp32", wanted)):
            sums[-1].plus(transfer.loads, 1.0 if transfer.factor is None else transfer.factor)
    for kind in ("ring", "nic.out", "nic.in", "trunk.out", "trunk.in"):
        assert sums[0].loads[kind].any()
        for other in sums[1:]:
            assert other.loads[kind] == pytest.approx(sums[0].loads[kind])


def test_idle_ranks_use_no_link():
    """Up and down a tree only edges carry bytes: of a broadcast's two steps among four ranks, one message, then two."""
    machine = tree(nodes=64, supernode=2, latencies=(0.0, 0.5, 2.0))
    for depth in ("fluid", "links"):
        traffic = Traffic(machine, place(Mesh.of({"ep": 4}), machine, "moda"), depth)
        far, near = traffic.transfers(Exchange("broadcast", "binomial", ("ep",), 10.0, "fp32"))
        assert (far.loads.loads["nic.out"].tolist(), far.loads.loads["nic.in"].tolist()) == ([1, 0, 0, 0], [0, 0, 1, 0])
        assert near.loads.loads["nic.out"].tolist() == [1, 0, 1, 0]
        assert not near.loads.loads["trunk.out"].any()
        assert (far.factor, far.fixed, near.fixed) == (10.0, 2.0, 0.5)


@pytest.mark.parametrize("depth", ["fluid", "links"])
@pytest.mark.parametrize("operation", ["broadcast", "reduce"])
@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
def test_a_chain_takes_about_one_payload(depth, operation, ranks):
    """N (1 + (P - 2)/C) over the bandwidth, and C + P - 2 latencies: an eighth for filling, whatever the ranks."""
    machine = tree(nodes=64, supernode=64, injection=10.0, latencies=(0.0, 0.5, 0.0))
    chunks = max(1, 8 * (ranks - 2))
    expected = 80.0 * (1 + (ranks - 2) / chunks) / 10.0 + 0.5 * (chunks + ranks - 2)
    exchange = Exchange(operation, "chain", ("ep",), 80.0, "fp32")
    assert seconds_of(machine, Mesh.of({"ep": ranks}), "moda", exchange, depth) == pytest.approx(expected)
    traffic = Traffic(machine, place(Mesh.of({"ep": ranks}), machine, "moda"), depth)
    assert len(traffic.transfers(exchange)) == 2 * (ranks - 2) + 1, "a full line is one transfer"


@pytest.mark.parametrize("depth", ["fluid", "links"])
def test_a_group_without_bytes_waits_for_no_link(depth):
    """Two groups share a trunk; only one of them has something to send."""
    mesh, machine = Mesh.of({"ep": 2, "dp": 2}), tree(nodes=64, supernode=2, taper=0.5, injection=10.0)
    traffic = Traffic(machine, place(mesh, machine, {"ep": "supernode", "dp": "node"}), depth)
    sent = np.array([[80.0, 0.0]])
    (transfer,) = traffic.transfers(Exchange("all-to-all", "pairwise-shift", ("ep",), sent, "fp32"))
    assert np.broadcast_to(transfer.group_seconds(transfer.demand.alone[0])[0], 2).tolist() == [4.0, 0.0]


def test_a_barrier_costs_latency_only():
    machine = tree(nodes=64, supernode=2, latencies=(0.0, 0.5, 2.0), overhead=0.25)
    barrier = Exchange("barrier", "dissemination", ("ep",), 0.0, "int64")
    assert seconds_of(machine, Mesh.of({"ep": 2}), "moda", barrier, "fluid") == 0.5 + 0.25
    assert seconds_of(machine, Mesh.of({"ep": 4}), "moda", barrier, "links") == 2 * (2.0 + 0.25)


def test_blocks_of_unequal_size_are_refused_where_they_travel_together():
    mesh, machine = Mesh.of({"ep": 4}), tree(nodes=64)
    traffic = Traffic(machine, place(mesh, machine, "moda"), "fluid")
    with pytest.raises(InputError, match="linear, pairwise-shift, pairwise-xor, two-level take them"):
        traffic.transfers(Exchange("all-to-all", "bruck", ("ep",), np.arange(4.0), "fp32"))


def test_fluid_depth_refuses_too_many_unequal_flows():
    mesh, machine = Mesh.of({"ep": 100, "dp": 2}), tree(nodes=512, supernode=16)
    amounts = np.arange(1.0, 201.0).reshape(mesh.shape)
    with pytest.raises(DoesNotFit, match="--depth links"):
        Traffic(machine, place(mesh, machine, "moda"), "fluid").transfers(
            Exchange("all-to-all", "linear", ("ep",), amounts, "fp32", amounts)
        )
