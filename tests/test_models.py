"""Models, meshes and placements."""

from math import prod

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.workloads.mesh import Mesh
from athanor.workloads.model import CATALOGUE, list_models, load_model
from athanor.workloads.placement import place
from athanor.workloads.plan import Plan
from athanor.workloads.setting import Setting
from hypothesis import given
from hypothesis import strategies as st
from machines import tree

OCEANLIGHT = load_machine("sunway-oceanlight")


@pytest.mark.parametrize(
    ("name", "expert", "dense"),
    [("moda-1.93t", 1.9327e12, 1.03e9), ("moda-14.5t", 14.4955e12, 0.97e9), ("moda-174t", 173.946e12, 1.59e9)],
)
def test_parameters_of_moda(name, expert, dense):
    counts = load_model(name).parameters
    assert counts.expert == pytest.approx(expert, rel=5e-5)
    assert counts.dense == pytest.approx(dense, rel=0.01)
    assert counts.total == counts.expert + counts.dense


@pytest.mark.parametrize("model", list_models(), ids=lambda model: model.name)
def test_every_number_of_a_model_has_a_source(model):
    shape = {"layers", "heads", "hidden", "ffn_hidden", "experts", "top_k", "vocabulary", "seq_len"}
    assert shape <= set(model.sources)
    for key in model.plan:
        assert f"plan.{key}" in model.sources or "plan" in model.sources
    Plan.of(model, {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("top_k = 1", "top_k = 401", "top_k = 401 exceeds the 400 experts"),
        ("layers = 12", "layers = -12", "layers is -12"),
        ("heads = 8", "heads = 7", "no multiple of heads = 7"),
        ("hidden = 4096", "hiden = 4096", "did you mean hidden"),
        ("layers = 12\n", "", "layers is missing"),
    ],
)
def test_bad_model_files(tmp_path, old, new, message):
    path = tmp_path / "model.toml"
    path.write_text((CATALOGUE / "moda-1.93t.toml").read_text().replace(old, new, 1))
    with pytest.raises(InputError) as wrong:
        load_model(path)
    assert message in str(wrong.value)
    assert str(wrong.value).startswith(str(path))


def test_moda_puts_data_parallel_inside_and_experts_across():
    mesh = Mesh.of({"ep": 400, "dp": 240})
    layout = place(mesh, OCEANLIGHT, "moda")
    home = (layout.node // 256).reshape(400, 240)
    assert (home == np.arange(400)[:, None]).all()
    assert (layout.nodes, layout.supernodes, layout.nodes_per_supernode) == (96_000, 400, 240)
    assert layout.two_level(("ep", "dp")).shape == (1, 400, 240)


def test_the_opposite_uses_the_same_nodes():
    mesh = Mesh.of({"ep": 400, "dp": 240})
    moda, opposite = place(mesh, OCEANLIGHT, "moda"), place(mesh, OCEANLIGHT, "opposite")
    assert sorted(moda.node) == sorted(opposite.node)
    first_group = opposite.node.reshape(400, 240)[:, 0] // 256
    assert np.bincount(first_group).tolist() == [240, 160]
    assert opposite.two_level(("ep",)) is None


@pytest.mark.parametrize(
    ("sizes", "supernodes", "per_supernode"),
    [
        ({"ep": 2400, "dp": 40}, 400, 240),
        ({"ep": 400, "dp": 15}, 25, 240),
        ({"ep": 96000, "dp": 1}, 375, 256),
        ({"ep": 96000}, 375, 256),
        ({"dp": 96000}, 375, 256),
    ],
)
def test_axes_spread_over_several_levels(sizes, supernodes, per_supernode):
    layout = place(Mesh.of(sizes), OCEANLIGHT, "moda")
    assert (layout.supernodes, layout.nodes_per_supernode) == (supernodes, per_supernode)
    assert len(np.unique(layout.node)) == prod(sizes.values())


def test_full_supernodes_regardless_of_groups():
    layout = place(Mesh.of({"ep": 400, "dp": 240}), OCEANLIGHT, "block:dp,ep")
    assert (layout.supernodes, layout.nodes) == (375, 96_000)
    assert layout.two_level(("dp",)) is None


def test_a_rank_a_core_group():
    layout = place(
        Mesh.of({"dp": 6, "ep": 8}), tree(nodes=16, core_groups=6), {"dp": "core_group", "ep": "node+supernode"}, 6
    )
    assert (layout.nodes, layout.ranks_per_node) == (8, 6)
    assert (layout.node.reshape(6, 8) == layout.node.reshape(6, 8)[0]).all()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.sampled_from(["moda", "opposite", "block:ep,dp"]))
def test_no_two_ranks_share_a_node(ep, dp, supernode, placement):
    machine = tree(nodes=400, supernode=supernode)
    layout = place(Mesh.of({"ep": ep, "dp": dp}), machine, placement)
    assert len(np.unique(layout.node)) == ep * dp


@pytest.mark.parametrize(
    ("sizes", "placement", "message"),
    [
        ({"ep": 4, "dp": 300}, {"ep": "supernode", "dp": "node"}, "exceed the 256 nodes of a supernode"),
        ({"ep": 500, "dp": 2}, {"ep": "supernode", "dp": "node"}, "exceed the 420 supernodes"),
        ({"ep": 400, "dp": 240}, {"ep": "supernode", "dp": "rack"}, "no such level"),
        ({"ep": 400, "dp": 240}, {"ep": "supernode"}, "axis dp"),
        ({"ep": 4, "dp": 2}, "modda", "did you mean moda"),
        ({"ep": 4, "dp": 2}, "block:ep", "must name the axes"),
    ],
)
def test_bad_placements(sizes, placement, message):
    with pytest.raises(InputError, match=message):
        place(Mesh.of(sizes), OCEANLIGHT, placement)


@pytest.mark.parametrize(
    ("sizes", "placement", "used", "message"),
    [
        ({"ep": 2, "dp": 140}, "moda", None, r"node 140 of supernode 2, of which test-tree has 44 \(300 in all\)"),
        ({"ep": 2, "dp": 140}, "block:dp,ep", 140, "node 140 of supernode 2"),
        ({"ep": 300}, "moda", None, "--placement block:ep leaves no gaps"),
        ({"ep": 20, "dp": 2}, {"ep": "supernode", "dp": "node"}, None, "exceed the 2 supernodes"),
        ({"ep": 60, "dp": 5}, "block:dp,ep", 60, "5 supernodes exceed the 2"),
    ],
)
def test_the_last_supernode_may_be_partial(sizes, placement, used, message):
    """300 nodes are one supernode of 256 and one of 44."""
    machine = tree(nodes=300, supernode=256)
    assert place(Mesh.of({"ep": 300}), machine, "block:ep").node.max() == 299
    with pytest.raises(InputError, match=message):
        place(Mesh.of(sizes), machine, placement, nodes_per_supernode=used)


def test_meshes_that_cannot_be():
    for sizes, message in (({"ep": 0}, "at least one"), ({"fsdpp": 2}, "did you mean fsdp"), ({}, "no axes")):
        with pytest.raises(InputError, match=message):
            Mesh.of(sizes)
    with pytest.raises(InputError, match=r"700,000 ranks exceed .* 107,520 nodes x 6 a node = 645,120"):
        Setting.of(OCEANLIGHT, "moda-1.93t", {"mesh": {"ep": 400, "dp": 1750}})
    with pytest.raises(InputError, match=r"120,000 ranks exceed .* 107,520 nodes x 1 a node"):
        Setting.of(OCEANLIGHT, "moda-1.93t", {"mesh": {"ep": 400, "dp": 300}, "ranks_per_node": 1})
    assert Setting.of(OCEANLIGHT, "moda-1.93t", {"mesh": {"ep": 400, "dp": 300}}).ranks_per_node == 2
