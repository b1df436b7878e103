"""Cards: of a node's interfaces a rank drives those that are its share, unless the machine file says that all are shared."""

import athanor
import numpy as np
import pytest
from athanor.hardware.fabrics.fabric import LinkKind
from athanor.hardware.machine import load_machine
from athanor.sim.network.links import LinkLoads
from athanor.sim.network.phases.transfers import Traffic
from athanor.sim.studies.collective import collective
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.node_cards import node_injection
from athanor.workloads.mesh.placement import Layout, place
from athanor.workloads.schedule.work import Exchange
from pytest import approx
from support.machines import tree

GIB = float(1 << 30)


def machine(ranks=8, interfaces=8, nodes=4, **node):
    plain = tree(nodes=nodes, supernode=nodes, core_groups=ranks, inside="switch", ring=1e3, injection=10.0)
    return plain.model_copy(update={"node": plain.node.model_copy(update={"interfaces": interfaces, **node})})


def test_a_ninth_rank_has_one_card():
    """Eight ranks send it a GiB each, and it has one card of 50 GB/s, of which 92.5 % reach applications."""
    eos = load_machine("eos-h100")
    card = 50e9 * eos.calibration.network_efficiency
    found = collective(eos, "all-to-all", "linear", 9, GIB, ranks_per_node=8)
    assert found.seconds == approx(8 * GIB / card, rel=1e-3)
    assert found.bound_seconds <= found.seconds * (1 + 1e-9)
    ring = collective(eos, "all-reduce", "ring", 9, GIB, ranks_per_node=8)
    assert ring.bus_bandwidth == approx(card, rel=0.01)


def test_full_nodes_have_all_their_cards():
    here = machine()
    layout = place(Mesh.of({"ep": 16}), here, "block:ep", 8)
    assert node_injection(here, layout) == approx([80.0, 80.0])


@pytest.mark.parametrize(
    ("ranks", "interfaces", "present", "cards"),
    [(8, 8, 3, 3), (8, 4, 1, 1), (8, 4, 2, 1), (8, 4, 3, 2), (8, 4, 8, 4), (8, 1, 1, 1), (4, 8, 1, 2), (1, 8, 1, 8)],
)
def test_ranks_reach_the_cards_that_are_their_share(ranks, interfaces, present, cards):
    """A card stands between so many ranks, or so many cards belong to a rank."""
    here = machine(max(ranks, 1), interfaces)
    layout = place(Mesh.of({"ep": present}), here, "block:ep", ranks)
    assert node_injection(here, layout) == approx([cards * 10.0])
    shared = machine(max(ranks, 1), interfaces, cards="shared")
    assert node_injection(shared, layout) == approx([interfaces * 10.0])


def test_who_shares_cards_is_a_property_of_the_machine():
    shared = {each.name for each in athanor.list_machines() if not each.node.own_cards}
    assert {"sunway-oceanlight", "sunway-taihulight", "fugaku", "tpu-v3"} <= shared
    assert {"eos-h100", "selene", "dgx-b200", "mi300x"}.isdisjoint(shared)


@pytest.mark.parametrize("depth", ["links", "fluid"])
def test_a_step_s_exchange_is_as_slow_as_the_collective(depth):
    """Nine ranks on two nodes, by phases: the ninth rank's card holds all back, at either depth."""
    here = machine()
    layout = place(Mesh.of({"ep": 9}), here, "block:ep", 8)
    exchange = Exchange("all-to-all", "linear", ("ep",), 9.0, "int64")
    (transfer,) = Traffic(here, layout, depth).transfers(exchange)
    assert transfer.group_seconds(transfer.demand.alone[0])[0] == approx(8 * 1.0 / 10.0)
    assert collective(here, "all-to-all", "linear", 9, 1.0, ranks_per_node=8, depth="message").seconds == approx(0.8)


def test_a_gpu_alone_in_its_node():
    here = machine()
    mesh = Mesh.of({"ep": 4})
    layout = Layout(mesh, np.arange(4), 8, 4, 4)
    exchange = Exchange("all-gather", "ring", ("ep",), 40.0, "int64")
    seconds = sum(
        each.group_seconds(each.demand.alone[0])[0] for each in Traffic(here, layout, "fluid").transfers(exchange)
    )
    assert seconds == approx(30.0 / 10.0)


def test_links_of_unequal_rates_are_busy_by_their_own():
    kind = LinkKind("nic.out", 8.0, 2, "nic", np.array([8.0, 1.0]))
    ((_, busy),) = LinkLoads((kind,), {"nic.out": np.array([8.0, 8.0])}).busy()
    assert busy == approx([1.0, 8.0])
