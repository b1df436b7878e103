"""Collectives whose bytes weigh other than their rounds say: links between pairs, and switches that add up; on paper."""

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.sim.messages.message_simulation import play
from athanor.sim.messages.message_tables import MessageSteps
from athanor.sim.messages.rank_symmetry import RankSymmetry
from athanor.sim.network.network_models import SHARING
from athanor.sim.network.phases.round_bytes import payloads
from athanor.sim.network.phases.traffic_factors import traffic_factors
from athanor.sim.network.phases.transfers import Traffic
from athanor.sim.network.topology import Graph
from athanor.sim.planning.collective_times import CollectiveTimes
from athanor.sim.studies.collective import collective
from athanor.workloads.collectives import rounds
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.work import Exchange
from support.machines import tree

DEPTHS = ("links", "fluid", "message")
PORT, NIC, SUMS = 42.0, 100.0, 36.0


def box(**settings):
    """Four nodes of eight accelerators on a switch."""
    machine = tree(nodes=4, supernode=4, core_groups=8, inside="switch", ring=PORT, injection=NIC)
    return machine.changed({f"node.{key}": value for key, value in settings.items()})


def found(machine, operation, algorithm, ranks, nbytes, depth):
    return collective(machine, operation, algorithm, ranks, nbytes, depth=depth, ranks_per_node=8, check_symmetry=True)


def seconds(machine, layout, exchange, depth):
    transfers = Traffic(machine, layout, depth).transfers(exchange)
    return sum(float(np.max(each.group_seconds(each.demand.alone[0])[0])) for each in transfers)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_group_has_the_links_among_its_members(ranks, depth):
    """A ring all-reduce of k of eight ranks has k - 1 of 7 links, each of 6, in either direction; so does an all-to-all."""
    links = box(inside="links")
    rate = (ranks - 1) * PORT / 7
    assert found(links, "all-reduce", "ring", ranks, 840.0, depth).bus_bandwidth == pytest.approx(rate)
    assert found(links, "all-to-all", "linear", ranks, 84.0, depth).seconds == pytest.approx((ranks - 1) * 84.0 / rate)
    assert found(links, "all-gather", "ring", ranks, 840.0, depth).fraction_of_bound <= 1.0 + 1e-9


@pytest.mark.parametrize("depth", ["links", "fluid"])
def test_groups_beside_each_other_have_links_of_their_own(depth):
    """Two groups of four in a node: three links each, whether they stand side by side or interleaved."""
    links, mesh = box(inside="links"), Mesh.of({"ep": 4, "dp": 2})
    for placement in ("block:ep,dp", "block:dp,ep"):
        exchange = Exchange("all-gather", "ring", ("ep",), 840.0, "fp32")
        layout = place(mesh, links, placement, 8)
        assert seconds(links, layout, exchange, depth) == pytest.approx(3 / 4 * 840.0 / (3 * PORT / 7))
        planned = CollectiveTimes(links).on(layout, placement).seconds(exchange)
        assert planned == pytest.approx(3 / 4 * 840.0 / (3 * PORT / 7))


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_ring_across_nodes_has_all_links_of_its_ranks(depth):
    """Two nodes of eight: seven links of each rank inside, all interfaces between."""
    for nic, slowest in ((NIC, PORT), (10.0, 10.0)):
        machine = box(inside="links", interface_bandwidth=nic)
        assert found(machine, "all-reduce", "ring", 16, 840.0, depth).bus_bandwidth == pytest.approx(slowest)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_switch_that_adds_up_takes_each_vector_once(depth):
    """Of eight ranks each sends its vector and its eighth of the sums: 9/8 in place of 14/8, at the rate of sums."""
    reducing = found(box(inside_reduction=SUMS), "all-reduce", "ring", 8, 800.0, depth)
    assert reducing.seconds == pytest.approx(9 / 8 * 800.0 / SUMS)
    assert reducing.fraction_of_bound <= 1.0
    plain = found(box(), "all-reduce", "ring", 8, 800.0, depth)
    assert plain.seconds == pytest.approx(14 / 8 * 800.0 / PORT)


@pytest.mark.parametrize("depth", DEPTHS)
def test_sums_in_a_switch_never_slow_anything_down(depth):
    """Two ranks do better without; and what is no sum, or names another algorithm, moves as it did."""
    plain, reducing = box(), box(inside_reduction=SUMS, network_reduction=True)
    for operation, algorithm, ranks in (
        ("all-reduce", "ring", 2),
        ("all-reduce", "halving-doubling", 8),
        ("all-gather", "ring", 8),
        ("reduce-scatter", "ring", 8),
        ("all-to-all", "linear", 16),
        ("broadcast", "binomial", 16),
    ):
        before, after = (found(each, operation, algorithm, ranks, 800.0, depth) for each in (plain, reducing))
        assert after.seconds == before.seconds


@pytest.mark.parametrize("depth", DEPTHS)
def test_switches_between_nodes_that_add_up_take_each_vector_once(depth):
    """Four nodes: the interfaces carry a vector out and back in, not 2 · 31/32 of it, where ports do not hold it up."""
    for reduces, factor in ((None, 62 / 32), (True, 1.0)):
        machine = box(interface_bandwidth=10.0, network_reduction=reduces)
        across = found(machine, "all-reduce", "ring", 32, 3200.0, depth)
        assert across.seconds == pytest.approx(factor * 3200.0 / 10.0)
        assert across.fraction_of_bound <= 1.0 + 1e-9
    both = found(box(interface_bandwidth=1000.0, inside_reduction=SUMS), "all-reduce", "ring", 32, 3200.0, depth)
    assert both.seconds == pytest.approx(9 / 8 * 3200.0 / SUMS)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_tree_between_two_nodes_sends_each_vector_once(depth):
    """Where a switch inside adds up: a vector each way between two nodes, and a ring's bytes between three."""
    machine = box(inside_reduction=SUMS, interface_bandwidth=10.0)
    assert found(machine, "all-reduce", "ring", 16, 1600.0, depth).seconds == pytest.approx(1600.0 / 10.0)
    assert found(machine, "all-reduce", "ring", 24, 2400.0, depth).seconds == pytest.approx(46 / 24 * 2400.0 / 10.0)


def test_whole_steps_use_them():
    """Tensor parallelism by all-reduces becomes faster by what a switch adds up, at each depth that takes such plans."""
    options = {"mesh": {"dp": 2, "tp": 8}, "recompute": "none", "global_batch": 16, "placement": "megatron"}
    machine = athanor.load_machine("eos-h100")
    reducing = machine.changed({"node.inside_reduction": "309 GB/s"})
    for depth in ("links", "fluid"):
        plain, faster = (
            athanor.simulate(each, "bert-large", depth=depth, **options).summary() for each in (machine, reducing)
        )
        assert faster["step_seconds"] < plain["step_seconds"]
        ports = [
            next(row["bytes_per_step"] for row in each["links"] if row["kind"] == "port.out")
            for each in (faster, plain)
        ]
        assert ports[0] < 0.9 * ports[1]


def test_bytes_on_links_between_pairs_are_the_same_at_every_depth():
    """Experts on four of the eight accelerators of a node, replicas on two: also where every rank is played by itself."""
    machine = athanor.load_machine("cluster-64").changed({"node.inside": "links", "node.core_groups": 8})
    ports = []
    for depth in DEPTHS:
        summary = athanor.simulate(
            machine, "moda-tiny", mesh={"ep": 4, "dp": 2}, depth=depth, balancer="even"
        ).summary()
        ports.append({row["kind"]: row["bytes_per_step"] for row in summary["links"]})
    assert ports[0] == pytest.approx(ports[1])
    assert ports[0] == pytest.approx(ports[2], rel=0.005), "there single tokens are drawn"
    switch = machine.changed({"node.inside": "switch"})
    plain = athanor.simulate(switch, "moda-tiny", mesh={"ep": 4, "dp": 2}, balancer="even").summary()
    before = {row["kind"]: row["bytes_per_step"] for row in plain["links"]}
    assert 7 / 3 * before["port.out"] < ports[0]["port.out"] < 7 * before["port.out"]


def test_only_a_switch_inside_adds_up():
    with pytest.raises(InputError, match='inside_reduction, for which inside must be "switch" and not "ring"'):
        box(inside="ring", inside_reduction=SUMS)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("even", [True, False])
def test_all_to_alls_reach_their_share_of_the_rates(depth, even):
    """Inside a node 0.8 of a port; across nodes half of the interfaces, also where messages of alike senders are merged."""
    machine = box(inside_all_to_all=0.8, network_all_to_all=0.5)
    assert found(machine, "all-to-all", "linear", 8, 80.0, depth).seconds == pytest.approx(7 * 80.0 / (0.8 * PORT))
    assert found(machine, "all-to-all", "linear", 32, 80.0, depth).seconds == pytest.approx(8 * 24 * 80.0 / (0.5 * NIC))
    assert found(machine, "all-to-all", "pairwise-xor", 8, 80.0, depth).seconds == pytest.approx(7 * 80.0 / PORT)
    mesh = Mesh.of({"ep": 4})
    layout = place(mesh, machine, "block:ep", 1)
    received = None if even else np.array([4.0, 1.0, 2.0, 1.0])
    exchange = Exchange("all-to-all", "linear", ("ep",), 400.0, "fp32", received=received)
    steps = {}
    for each in (machine, box()):
        if depth == "message":
            grid = MessageSteps(
                Graph.of(each, layout),
                layout.groups(("ep",)),
                rounds("all-to-all", "linear", 1, 4),
                4,
                payloads(layout, exchange, rounds("all-to-all", "linear", 1, 4)),
                SHARING["maxmin"],
                0.0,
                RankSymmetry.alone(Graph.of(each, layout)),
                traffic_factors(each, layout, layout.groups(("ep",)), "all-to-all", "linear"),
            )
            steps[each.node.network_all_to_all] = float(play([(grid, np.zeros(4))])[0].max())
        else:
            steps[each.node.network_all_to_all] = seconds(each, layout, exchange, depth)
    assert steps[0.5] == pytest.approx(2 * steps[None])
