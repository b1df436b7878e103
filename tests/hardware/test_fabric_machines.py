"""Machines with each fabric: example files, what is wrong with files, changes, placements, and trees that are the same."""

import numpy as np
import pytest
from athanor import simulate
from athanor.hardware.errors import InputError
from athanor.hardware.fabrics import Crossbar
from athanor.hardware.machine import Machine, load_machine
from support.fabrics import dragonfly, fat_tree, pruned, torus
from support.machines import tree
from support.paths import MACHINE_FILES


def with_fabric(fabric, nodes=16):
    """The tests' machine with another fabric."""
    return Machine.model_validate({**tree(nodes=nodes).model_dump(), "fabric": fabric})


@pytest.mark.parametrize("path", MACHINE_FILES, ids=lambda path: path.stem)
def test_examples_load_and_have_sources(path):
    machine = load_machine(path)
    assert (machine.name, machine.unsourced()) == (path.stem, [])
    source, target = np.arange(machine.nodes - 1), np.arange(1, machine.nodes)
    routes = machine.fabric.routes(source, target, machine.nodes)
    assert routes.max(initial=-1) < sum(kind.count for kind in machine.fabric_links(machine.nodes))
    assert (machine.fabric.latencies(source, target) > machine.fabric.latency_node).all()
    assert ("fabric.kind", machine.fabric.kind) in {(key, value) for key, value, _ in machine.numbers()}


def test_examples_cover_every_kind():
    kinds = {load_machine(path).fabric.kind for path in MACHINE_FILES}
    assert kinds | {"pruned-fat-tree"} == {"pruned-fat-tree", "crossbar", "fat-tree", "dragonfly", "torus", "rails"}


def test_the_oracles_platform():
    machine = load_machine("simgrid-tree")
    trunk, _ = machine.fabric_links(machine.nodes)
    assert (machine.nodes, machine.injection, trunk.capacity, trunk.count) == (1024, 12.5e9, 3 / 16 * 256 * 12.5e9, 4)
    assert machine.fabric.latencies(np.zeros(3, np.int64), np.array([0, 1, 256])).tolist() == [0.0, 2e-6, 4e-6]


def test_links_lose_what_the_network_loses():
    machine = with_fabric(torus(4, 4)).changed({"calibration.network_efficiency": 0.5})
    assert {kind.capacity for kind in machine.fabric_links(16)} == {2.5}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Crossbar(latency_node=0.5, latency_link=0.5), pruned(16, 1.0, "adaptive")),
        (fat_tree((4, 0.5), (4, None), routing="adaptive"), pruned(4, 0.5, "adaptive")),
        (fat_tree((4, 0.5), (4, None)), pruned(4, 0.5, "static")),
    ],
    ids=["crossbar", "fat-tree", "fat-tree-static"],
)
def test_trees_that_are_the_same_take_the_same_time(found, expected):
    options = {"mesh": {"ep": 4, "dp": 4}, "allow_overcommit": True, "router": "zipf:1.0", "balancer": "none"}
    one, other = (simulate(with_fabric(fabric), "moda-tiny", **options).summary() for fabric in (found, expected))
    assert one["step_seconds"] == pytest.approx(other["step_seconds"], rel=1e-12)
    taller = fat_tree((2, 0.5), (2, 0.5), (4, None), routing="adaptive")
    assert simulate(with_fabric(taller), "moda-tiny", **options).summary()["step_seconds"] > one["step_seconds"]


def test_placements_know_a_fabric_without_bounds():
    machine = with_fabric(Crossbar(latency_node=0, latency_link=0))
    assert (machine.supernode, machine.supernodes) == (16, 1)
    with pytest.raises(InputError, match="exceed the 16 nodes of a supernode"):
        simulate(machine.changed({"node.core_groups": 2}), "moda-tiny", mesh={"ep": 2, "dp": 10}, ranks_per_node=2,
                 placement="ep=node,dp=node")  # fmt: skip


def test_values_inside_lists_can_be_set():
    machine = load_machine(next(path for path in MACHINE_FILES if path.stem == "fat-tree-512"))
    assert machine.changed({"fabric.tiers.0.taper": "1/4"}).fabric.tiers[0].taper == 0.25
    with pytest.raises(InputError, match=r"--set fabric.tiers.7.taper: fat-tree-512 has no such key"):
        machine.changed({"fabric.tiers.7.taper": "1/4"})
    with pytest.raises(InputError, match=r"--set fabric.tiers.0.taper=2: must lie in \(0, 1\]"):
        machine.changed({"fabric.tiers.0.taper": "2"})
    flat = load_machine(next(path for path in MACHINE_FILES if path.stem == "torus-8x8x8"))
    assert flat.changed({"fabric.shape": "16x4x8"}).fabric.shape == (16, 4, 8)
    smaller = flat.changed({"nodes": 64, "fabric.shape": "8x8"})
    assert smaller.supernodes == 1
    with pytest.raises(InputError, match="--set nodes=64: nodes is 64: a torus of 8x8x8 has 512"):
        flat.changed({"nodes": 64})


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("torus-8x8x8", '"torus"', '"torsu"', 'fabric.kind is "torsu": no such choice (pruned-fat-tree, crossbar, fat-tree, dragonfly, torus, rails); did you mean torus?'),
        ("torus-8x8x8", '"torus"', "3", 'fabric.kind is "3": no such choice'),
        ("torus-8x8x8", 'kind = "torus"\n', "", "fabric.shape is an unknown key"),
        ("torus-8x8x8", "[8, 8, 8]", "[512]", "fabric.shape is [512]: tuple should have at least 2 items"),
        ("torus-8x8x8", "[8, 8, 8]", "[2, 4, 8, 8]", "tuple should have at most 3 items"),
        ("torus-8x8x8", "[8, 8, 8]", "[512, 1]", "fabric.shape.1 is 1: input should be greater than or equal to 2"),
        ("torus-8x8x8", "[8, 8, 8]", "[8, 8, 9]", "nodes is 512: a torus of 8x8x9 has 576"),
        ("torus-8x8x8", "link_bandwidth", "link_bandwith", "fabric.link_bandwith is an unknown key (kind, routing, latency_node, shape, link_bandwidth, latency_interface, latency_link); did you mean link_bandwidth?"),
        ("torus-8x8x8", '"0.1 us"', '"0.1 GB"', 'fabric.latency_link is "0.1 GB": "0.1 GB" is a size; needs a time'),
        ("dragonfly-1056", "global_links = 4", "global_links = 0", "fabric.global_links is 0: input should be greater than or equal to 1"),
        ("dragonfly-1056", "global_links = 4", "global_links = 3", "groups is 33: the 24 global links of a group reach 24 others, so at most 25"),
        ("dragonfly-1056", "nodes = 1056", "nodes = 1057", "nodes is 1,057: a dragonfly of 33 groups x 8 routers x 4 hosts has room for 1,056"),
        ("dragonfly-1056", '"minimal"', '"minimum"', 'fabric.routing is "minimum": no such choice (minimal, valiant); did you mean minimal?'),
        ("dragonfly-1056", "hosts = 4\n", "", "fabric.hosts is missing"),
        ("fat-tree-512", "nodes = 512", "nodes = 513", "nodes is 513: a fat tree of 16x8x4 has room for 512"),
        ("fat-tree-512", 'taper = "1/2"\n', "", "tier 0 has no taper; only the top one goes without"),
        ("fat-tree-512", "down = 4\n", 'down = 4\ntaper = "1/2"\n', "tier 2 is the top: nothing is above it, so it has no taper"),
        ("fat-tree-512", 'taper = "1/2"', 'taper = "2"', 'fabric.tiers.0.taper is "2": must lie in (0, 1]'),
        ("fat-tree-512", "down = 16", "dwon = 16", "fabric.tiers.0.dwon is an unknown key (down, taper, latency); did you mean down?"),
        ("rails-256", "nodes = 256", "nodes = 250", "nodes is 250: 32 islands of 8 have 256"),
        ("crossbar-64", 'latency_link = "0.5 us"', "latency_link = 1", "fabric.latency_link is 1: has no unit"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path, name, old, new, message):
    text = next(path for path in MACHINE_FILES if path.stem == name).read_text()
    assert old in text
    path = tmp_path / "machine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as wrong:
        load_machine(path)
    assert message in str(wrong.value)
    assert str(wrong.value).startswith(f"{path}: ")
    assert "\n" not in str(wrong.value)


def test_routings():
    assert with_fabric(dragonfly(4, 2, 2, 2)).with_routing("valiant").fabric.routing == "valiant"
    assert with_fabric(torus(4, 4)).with_routing("dimension-order").fabric.routing == "dimension-order"
    with pytest.raises(
        InputError, match=r"--routing static: no such routing on the torus of test-tree \(dimension-order\)"
    ):
        with_fabric(torus(4, 4)).with_routing("static")
    with pytest.raises(InputError, match=r"--routing adaptve: .* \(adaptive, static\); did you mean adaptive\?"):
        simulate(tree(), "moda-tiny", routing="adaptve")


def test_a_change_of_kind_says_what_is_left_over():
    with pytest.raises(InputError, match=r"--set fabric.kind=torus: fabric\.\w+ is an unknown key \(kind, routing, "):
        tree().changed({"fabric.kind": "torus"})
