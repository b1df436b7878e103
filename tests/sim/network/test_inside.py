"""What joins the ranks of a node: a ring that they share, or a switch with a port for each; on paper, at every depth."""

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.messages.link_bytes import links
from athanor.sim.network.phases.transfers import Traffic
from athanor.sim.studies.collective import collective
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place, resolve_ranks_per_node
from athanor.workloads.schedule.work import Exchange
from support.fabrics import torus
from support.machines import tree

DEPTHS = ("links", "fluid", "message")
PORT = 40.0
NIC = 100.0


def box(nodes=4, core_groups=8, ring=PORT):
    """Nodes of eight accelerators on a switch, behind interfaces of 2.5 ports."""
    return tree(nodes=nodes, supernode=nodes, core_groups=core_groups, inside="switch", ring=ring, injection=NIC)


def seconds(machine, operation, algorithm, ranks, nbytes, depth, **options):
    return collective(machine, operation, algorithm, ranks, nbytes, depth=depth, check_symmetry=True, **options).seconds


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("algorithm", ["linear", "pairwise-shift", "pairwise-xor"])
def test_an_all_to_all_fills_every_port(algorithm, depth):
    """Each of eight ranks sends 7 blocks out of its port and takes 7 in, whoever else is busy."""
    assert seconds(box(), "all-to-all", algorithm, 8, 80.0, depth) == pytest.approx(7 * 80.0 / PORT)
    ring = box().changed({"node.inside": "ring"})
    shared = seconds(ring, "all-to-all", algorithm, 8, 80.0, depth, ranks_per_node=8)
    assert shared == pytest.approx(8 * 7 * 80.0 / PORT), "a ring carries the blocks of all"


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_ring_all_reduce_runs_at_the_ports_rate(depth):
    """2 (P - 1) / P of a vector through each port: the bus bandwidth is that of a port, and nothing can be faster."""
    found = collective(box(), "all-reduce", "ring", 8, 800.0, depth=depth, check_symmetry=True)
    assert found.seconds == pytest.approx(2 * 7 / 8 * 800.0 / PORT)
    assert found.bus_bandwidth == pytest.approx(PORT)
    assert found.fraction_of_bound == pytest.approx(1.0)
    assert found.bottleneck.startswith("port")


@pytest.mark.parametrize("depth", DEPTHS)
def test_pairs_do_not_hold_each_other_up(depth):
    """One pair gets one port's rate, and so does each of four."""
    for ranks in (2, 8):
        assert seconds(box(), "all-to-all", "pairwise-xor", ranks, 80.0, depth) == pytest.approx(
            (ranks - 1) * 80.0 / PORT
        )
    mesh = Mesh.of({"ep": 2, "dp": 4})
    layout = place(mesh, box(), {"ep": "core_group", "dp": "core_group"}, 8)
    exchange = Exchange("all-reduce", "ring", ("ep",), 80.0, "fp32")
    if depth != "message":
        transfers = Traffic(box(), layout, depth).transfers(exchange)
        assert sum(float(np.max(each.group_seconds(each.demand.alone[0])[0])) for each in transfers) == pytest.approx(
            80.0 / PORT
        )


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_ring_across_nodes_has_all_interfaces_of_a_node(depth):
    """Two nodes of eight: one rank of each sends across, at the rate of the whole node and not of one interface."""
    machine = box().changed({"node.interfaces": 8, "node.interface_bandwidth": 3.0})
    assert seconds(machine, "all-reduce", "ring", 16, 800.0, depth) == pytest.approx(2 * 15 / 16 * 800.0 / 24.0)
    fast = box().changed({"node.interfaces": 8, "node.interface_bandwidth": 30.0})
    assert seconds(fast, "all-reduce", "ring", 16, 800.0, depth) == pytest.approx(2 * 15 / 16 * 800.0 / PORT)


@pytest.mark.parametrize("depth", DEPTHS)
def test_traffic_that_leaves_the_node_does_not_use_ports(depth):
    """Two ranks of two nodes, whatever the ports carry."""
    for port in (PORT, NIC / 100):
        machine = box(ring=port)
        assert seconds(machine, "all-to-all", "linear", 2, 80.0, depth, ranks_per_node=1) == pytest.approx(80.0 / NIC)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_rank_of_several_accelerators_has_all_their_ports(depth):
    """Four ranks of two accelerators each."""
    found = seconds(box(), "all-to-all", "linear", 4, 80.0, depth, ranks_per_node=4)
    assert found == pytest.approx(3 * 80.0 / (2 * PORT))
    processor = box().processor(4)
    assert processor.ring_bandwidth == 2 * PORT


@pytest.mark.parametrize("depth", ["links", "fluid"])
def test_ports_where_the_fabric_is_no_tree(depth):
    machine = box(nodes=16).changed({"fabric": {**torus(4, 4).model_dump(), "latency_node": 0.0}})
    assert seconds(machine, "all-to-all", "linear", 8, 80.0, depth) == pytest.approx(7 * 80.0 / PORT)
    layout = place(Mesh.of({"ep": 8}), machine, "moda", 8)
    exchange = Exchange("all-reduce", "ring", ("ep",), 800.0, "fp32")
    found = sum(
        float(np.max(each.group_seconds(each.demand.alone[0])[0]))
        for each in Traffic(machine, layout, depth).transfers(exchange)
    )
    assert found == pytest.approx(2 * 7 / 8 * 800.0 / PORT)


@pytest.mark.parametrize("depth", DEPTHS)
def test_whole_steps_tell_the_use_of_ports(depth):
    """Experts on the eight accelerators of a node: dispatch and combine pass the ports and no interface."""
    machine = athanor.load_machine("cluster-64").changed({"node.inside": "switch", "node.core_groups": 8})
    run = athanor.simulate(machine, "moda-tiny", mesh={"ep": 4, "dp": 2}, depth=depth)
    kinds = {row["kind"]: row for row in run.summary()["links"]}
    assert kinds["port.out"]["links"] == kinds["port.in"]["links"] == 8
    assert kinds["port.out"]["bytes_per_step"] == pytest.approx(kinds["port.in"]["bytes_per_step"])
    assert "ring" not in kinds
    assert "nic.out" not in kinds


def test_measured_bytes_are_told_by_port():
    """What ranks sent to each other, by the ports of those that share a node."""
    machine = box(nodes=2, core_groups=2)
    layout = place(Mesh.of({"ep": 4}), machine, "block:ep", 2)
    by_kind = {row.kind: row for row in links(machine, layout, np.arange(16.0).reshape(4, 4), 1.0, 1)}
    inside = {"port.out": [0 + 1, 4 + 5, 10 + 11, 14 + 15], "port.in": [0 + 4, 1 + 5, 10 + 14, 11 + 15]}
    for kind, nbytes in inside.items():
        assert by_kind[kind].bytes_per_step == sum(nbytes)
        assert by_kind[kind].busiest == int(np.argmax(nbytes))
        assert by_kind[kind].max_utilisation == max(nbytes) / PORT
    assert by_kind["nic.out"].bytes_per_step == 2 + 3 + 6 + 7 + 8 + 9 + 12 + 13


def test_an_accelerator_is_a_rank():
    """However few ranks there are; a placement that was asked for counts more."""
    for ranks in (1, 4, 8, 32):
        assert resolve_ranks_per_node(box(), "moda", None, ranks) == 8
    assert resolve_ranks_per_node(box(), "moda", 2, 8) == 2
    assert resolve_ranks_per_node(box().changed({"node.inside": "ring"}), "moda", None, 4) == 1
    layout = place(Mesh.of({"ep": 12}), box(), "moda", 8)
    assert layout.nodes == 2


@pytest.mark.parametrize("sizes", [(8, 4, 2), (2, 2, 16), (4, 2, 3)])
def test_moda_places_any_axes(sizes):
    """Ranks fill nodes from the inside out, dp first, and no node holds more than its accelerators."""
    tp, pp, dp = sizes
    mesh = Mesh(("pp", "dp", "tp"), (pp, dp, tp))
    layout = place(mesh, box(nodes=16), "moda", 8)
    assert np.bincount(layout.node).max() <= 8
    assert len(layout.node) == tp * pp * dp
    first = layout.node[layout.groups(("dp",))[0]]
    assert len(set(first)) == -(-dp // 8)


def test_a_node_is_a_ring_or_a_switch():
    with pytest.raises(
        InputError, match=r"node\.inside=swich: no such choice \(ring, switch, links\); did you mean switch"
    ):
        box().changed({"node.inside": "swich"})


def test_measured_links_carry_their_bytes_in_the_time_that_they_are_busy():
    """Those that are not used do not count: of the two nodes' interfaces one sends and one receives."""
    machine, seconds = box(nodes=2, core_groups=2), 3.0
    layout = place(Mesh.of({"ep": 4}), machine, "block:ep", 2)
    sent = np.zeros((4, 4))
    sent[0, 1:] = 5.0, 6.0, 8.0
    rows = links(machine, layout, sent, seconds, 2)
    assert {row.kind: row.links for row in rows if row.kind in ("nic.out", "nic.in")} == {"nic.out": 1, "nic.in": 1}
    for row in rows:
        carried = row.mean_utilisation * row.links * row.capacity_bytes_per_second * seconds
        assert carried == pytest.approx(2 * row.bytes_per_step)


@pytest.mark.parametrize(
    "operation, algorithm", [("all-to-all", "linear"), ("all-reduce", "ring"), ("broadcast", "binomial")]
)
@pytest.mark.parametrize("fabric", ["torus", "tree"])
def test_links_of_a_collective_carry_their_bytes_in_the_time_that_they_are_busy(operation, algorithm, fabric):
    """Also where one link stands for more that are alike than another."""
    machine = tree(nodes=16, supernode=4)
    if fabric == "torus":
        machine = machine.model_copy(update={"fabric": torus(4, 4)})
    found = collective(machine, operation, algorithm, 10, 1000.0)
    for row in found.links:
        carried = row["mean_utilisation"] * row["links"] * row["capacity_bytes_per_second"] * found.seconds
        assert carried == pytest.approx(row["bytes"])
