"""Models, meshes and placements."""

import re
from math import prod

import numpy as np
import pytest
from athanor.cli.choices import _shape
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.reports.content.inputs import NO_SHAPE
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.model.model import CATALOGUE, Model, list_models, load_model
from athanor.workloads.plan.batch import Batch
from athanor.workloads.plan.checks import Given, check
from athanor.workloads.plan.plan import Plan
from athanor.workloads.plan.setting import Setting
from hypothesis import given
from hypothesis import strategies as st
from support.machines import tree

OCEANLIGHT = load_machine("sunway-oceanlight")
GRID = Mesh(("row", "col", "dp"), (4, 4, 2))


@pytest.mark.parametrize(
    ("name", "expert", "dense"),
    [("moda-1.93t", 1.9327e12, 1.03e9), ("moda-14.5t", 14.4955e12, 0.97e9), ("moda-174t", 173.946e12, 1.59e9)],
)
def test_parameters_of_moda(name, expert, dense):
    counts = load_model(name).parameters
    assert counts.expert == pytest.approx(expert, rel=5e-5)
    assert counts.dense == pytest.approx(dense, rel=0.01)
    assert counts.total == counts.expert + counts.dense


MODELS = {model.name: model for model in list_models()}


@pytest.mark.parametrize("name", MODELS)
def test_every_number_of_a_model_has_a_source(name):
    model = MODELS[name]
    assert model.model_fields_set - NO_SHAPE <= set(model.sources)
    for key in model.plan:
        assert f"plan.{key}" in model.sources or "plan" in model.sources
    if model.plan:
        Plan.of(model, {})


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.published_parameters])
def test_every_model_has_the_parameters_that_its_authors_say(name):
    """Within 1 %, or within what the source of the published number says, and why."""
    model = MODELS[name]
    wider = re.match(r"within ([\d.]+) %: .{10}", model.sources["published_parameters"])
    allowed = float(wider[1]) / 100 if wider else 0.01
    assert model.parameters.total == pytest.approx(model.published_parameters, rel=allowed)
    assert bool(wider) == (name in WIDER)


WIDER = {"gshard-600b", "m6-10b", "megatron-1.7b", "megatron-3.6b", "pangu-2.6b", "pangu-13b", "pangu-200b"}


def test_models_without_a_published_number_of_parameters_are_few():
    assert {name for name, model in MODELS.items() if not model.published_parameters} == {
        "gpt-tiny",
        "moda-tiny",
        "optimus-4",
        "optimus-64",
    }


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.plan])
def test_the_plan_of_a_model_cuts_it_evenly(name):
    """On as many ranks as its mesh has, whatever machine they are of."""
    model = MODELS[name]
    plan = Plan.of(model, {})
    mesh = Mesh.of(plan.mesh)
    machine = tree(nodes=mesh.ranks, supernode=min(mesh.ranks, 256))
    grid = mesh.gridded() if plan.tensor == "2d" else mesh
    check(Given(model, plan.changed(offload="none"), grid, Batch.of(plan, model, machine, grid, 1), machine))


def parts(**changes):
    """Parameters of a model of two layers with hidden 8, four heads, FFN 16 and 10 words, by part."""
    shape = {"name": "x", "layers": 2, "heads": 4, "hidden": 8, "ffn_hidden": 16, "vocabulary": 10, "seq_len": 4}
    counts = Model.model_validate({**shape, **changes}).parameters
    return [counts.expert, counts.ffn, counts.attention, counts.gate, counts.embedding, counts.norm]


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, [0, 2 * 2 * 8 * 16, 2 * 4 * 64, 0, 80, 5 * 16]),
        ({"gated": True, "norm": "rms"}, [0, 2 * 3 * 8 * 16, 2 * 4 * 64, 0, 80, 5 * 8]),
        ({"biases": True}, [0, 2 * (256 + 16 + 8), 2 * (256 + 32), 0, 80, 80]),
        ({"kv_heads": 2}, [0, 512, 2 * (64 + 2 * 32 + 64), 0, 80, 80]),
        ({"head_size": 3}, [0, 512, 2 * 4 * 8 * 12, 0, 80, 80]),
        ({"tied": False, "positions": 6}, [0, 512, 512, 0, (10 + 6 + 10) * 8, 80]),
        ({"patches": 2, "patch_values": 7}, [0, 512, 512, 0, (10 + 7) * 8, 80]),
        ({"experts": 3}, [2 * 3 * 256, 0, 512, 2 * 3 * 8, 80, 80]),
        ({"experts": 3, "expert_hidden": 4, "dense_first": 1}, [3 * 64, 256, 512, 24, 80, 80]),
        ({"experts": 3, "moe_every": 2, "shared_experts": 1}, [3 * 256, 256 + 256, 512, 24, 80, 80]),
        ({"biases": ["qkv"], "kv_heads": 2}, [0, 512, 2 * (64 + 2 * 32 + 64 + 16), 0, 80, 80]),
        ({"biases": ["out", "gate", "output"], "experts": 3}, [1536, 0, 2 * (256 + 8), 2 * 27, 80 + 10, 80]),
        ({"query_key_norm": "head", "kv_heads": 2, "norm": "rms"}, [0, 512, 384, 0, 80, 5 * 8 + 2 * 4]),
        ({"query_key_norm": "all", "kv_heads": 2, "norm": "rms"}, [0, 512, 384, 0, 80, 5 * 8 + 2 * (8 + 4)]),
        ({"gated_attention": True, "norm": "layer-scale"}, [0, 512, 2 * 5 * 64, 0, 80, 40]),
        ({"experts": 3, "dense_beside": 5}, [1536, 2 * 80, 512, 48, 80, 80 + 2 * 16]),
        ({"further_tokens": 2}, [0, 4 * 256 + 2 * 128, 4 * 256, 0, 80, 80 + 2 * 5 * 16]),
        ({"ffn_hidden": 0, "mixers": ["window"], "window": 2}, [0, 0, 512, 0, 80, 3 * 16]),
        (
            {"latent": {"key_value_rank": 6, "plain": 3, "rotary": 2, "value": 4}, "norm": "rms"},
            [0, 512, 2 * (8 * 4 * 5 + 8 * (6 + 2) + 6 * 4 * (3 + 4) + 4 * 4 * 8), 0, 80, 2 * (16 + 6) + 8],
        ),
        (
            {"mixers": ["m", "attention"], "recurrent": {"m": {"kind": "mamba-1", "state_size": 3, "rank": 2}}},
            [0, 512, 256 + 8 * 32 + 16 * 5 + 16 * 8 + 2 * 16 + 16 + 16 * 3 + 16 + 16 * 8, 0, 80, 80],
        ),
        ({"encoder_layers": 1}, [0, 3 * 256, (1 + 2 * 2) * 256, 0, 80, (2 + 2 * 3 + 2) * 16]),
        (
            {"latent": {"query_rank": 5, "key_value_rank": 6, "plain": 3, "rotary": 2, "value": 4}, "norm": "rms"},
            [0, 512, 2 * (5 * (8 + 4 * 5) + 8 * (6 + 2) + 6 * 4 * (3 + 4) + 4 * 4 * 8), 0, 80, 2 * (16 + 11) + 8],
        ),
    ],
)
def test_parameters_by_hand(changes, counted):
    assert parts(**changes) == counted


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("top_k = 1", "top_k = 401", "top_k = 401 exceeds the 400 experts"),
        ("layers = 12", "layers = -12", "layers is -12: input should be greater than 0"),
        ("layers = 12", "layers = 12.5", "layers is 12.5"),
        ("heads = 8", "heads = 7", "no multiple of heads = 7"),
        ("heads = 8", "heads = 8\nkv_heads = 3", "heads = 8 is no multiple of kv_heads = 3"),
        ("hidden = 4096", "hiden = 4096", "hiden is an unknown key"),
        ("hidden = 4096", "hiden = 4096", "did you mean hidden"),
        ("layers = 12\n", "", "layers is missing; needs a whole number above 0"),
        ("ffn_hidden = 49152\n", "", "ffn_hidden is missing"),
        ("seq_len = 1024", "seq_len = 1024\nnorm = 'rmsnorm'", "no such choice (layer, layer-scale, rms)"),
        ("seq_len = 1024", "seq_len = 1024\nlatent = { plain = 1 }", "latent.key_value_rank is missing"),
        ("seq_len = 1024", "seq_len = 1024\npatches = 16", "patches need patch_values"),
        ("seq_len = 1024", "seq_len = 1024\ndecoder_seq_len = 16", "decoder_seq_len is for models with encoder_layers"),
        ("heads = 8\n", "", "heads is missing; needs a whole number above 0"),
        (
            "seq_len = 1024",
            "seq_len = 1024\nmixers = ['windw']",
            'mixers: "windw" is no mixer (attention, window, chunk)',
        ),
        (
            "seq_len = 1024",
            "seq_len = 1024\nmixers = ['window']",
            "mixers has layers with a window; they need window =",
        ),
        ("seq_len = 1024", "seq_len = 1024\nwindow = 4", "mixers: no layer has the window that is given"),
        ("seq_len = 1024", "seq_len = 1024\nmixers = ['13*attention']", "mixers has 13 layers, must be 1 to the 12"),
        (
            "seq_len = 1024",
            "seq_len = 1024\nrecurrent = { m = { kind = 'mamba' } }",
            'recurrent.m.kind is "mamba": no such',
        ),
        (
            "seq_len = 1024",
            "seq_len = 1024\nrecurrent = { m = { kind = 'mamba-1' } }",
            "no layer has the m that is given",
        ),
        ("seq_len = 1024", "seq_len = 1024\nbiases = ['qkw']", "no such choice"),
        ("seq_len = 1024", "seq_len = 1024\nencoder_layers = 2\nfurther_tokens = 1", "decoders without an encoder"),
    ],
)
def test_bad_model_files(tmp_path, old, new, message):
    path = tmp_path / "model.toml"
    path.write_text((CATALOGUE / "moda-1.93t.toml").read_text().replace(old, new, 1))
    with pytest.raises(InputError) as wrong:
        load_model(path)
    assert message in str(wrong.value)
    assert str(wrong.value).startswith(str(path))
    assert wrong.value.exit_status == 2
    assert "\n" not in str(wrong.value)


def test_the_list_of_models_shows_shapes():
    rows = {model.name: _shape(model)[2:] for model in MODELS.values()}
    assert rows["gpt3-175b"] == ("175", "96", "12,288", "")
    assert rows["deepseek-v3"] == ("671", "61", "7,168", "256 / 8")
    assert rows["t5-11b"] == ("11.3", "24 + 24", "1,024", "")


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


def test_a_node_holds_a_tile_of_the_grid():
    """As Optimus arranges four GPUs a node: a 4 x 4 grid in tiles of 2 x 2, and replicas one after another."""
    nodes = place(GRID, tree(nodes=8, core_groups=4), "grid", 4).node.reshape(4, 4, 2)
    assert nodes[..., 0].tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 3, 3], [1, 1, 3, 3]]
    assert (nodes[..., 1] == nodes[..., 0] + 4).all()
    rows = place(GRID, tree(nodes=8, core_groups=4), "megatron", 4).node.reshape(4, 4, 2)[..., 0]
    assert rows.tolist() == [[0, 1, 2, 3]] * 4, "a column a node, and four rows through each"


@pytest.mark.parametrize(
    ("side", "core_groups", "tile"),
    [(4, 1, 1), (4, 2, 1), (3, 4, 1), (4, 6, 1), (6, 9, 3), (4, 8, 2), (4, 16, 4), (6, 16, 2)],
)
def test_a_tile_divides_the_grid_and_the_node(side, core_groups, tile):
    mesh = Mesh(("row", "dp", "col"), (side, 2, side))
    machine = tree(nodes=80, core_groups=core_groups)
    layout = place(mesh, machine, "grid", core_groups)
    nodes = layout.node.reshape(side, 2, side)[:, 0]
    assert np.bincount(layout.node).max() == min(core_groups, 2 * side**2)
    blocks = nodes.reshape(side // tile, tile, side // tile, tile).transpose(0, 2, 1, 3).reshape(-1, tile**2)
    assert (blocks == blocks[:, :1]).all(), "a tile is on one node"
    if tile == 1:
        assert (layout.node == place(mesh, machine, "megatron", core_groups).node).all()
    for axis in ("row", "col"):
        assert (layout.groups((axis,)) == mesh.groups((axis,))).all(), "members are in the order of nodes"
    assert (layout.node == place(mesh, machine, "auto", core_groups).node).all()


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
        ({"tp": 4, "dp": 2}, "grid", "--placement grid: --mesh tp=4,dp=2 has no rows and columns; --tensor 2d makes a"),
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
