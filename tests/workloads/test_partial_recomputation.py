"""Recomputation of some modules and of some layers: what is kept, what is run again, and what is refused."""

from collections import Counter

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.execute.capabilities import data_of
from athanor.workloads.memory import account, sample_loads
from athanor.workloads.model.model import Model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.recomputation import RECOMPUTATIONS
from athanor.workloads.recomputation.modules import MODULES
from support.strategies import DENSE, GATED, LATENT, SHARED, flat, lowered, names, plan, products

TOKENS = 64
MLA = Model(**{**SHARED.model_dump(), "name": "mla", "latent": LATENT.latent, "layers": 4, "gated": True})


def here(model, **options):
    return Setting.of(flat(), model, plan(mesh={"dp": 2}, balancer="even", **options))


def kept(model, **options):
    """Bytes that layers keep, by operator and what it is."""
    setting = here(model, **options)
    found = account(setting, sample_loads(setting)).lines
    return Counter({(line.name, line.what): float(line.nbytes[0]) for line in found if line.kept})


DROPPED = {  # what each module of Megatron-LM keeps no more
    "core_attn": {"attention.softmax"},
    "layernorm": {"attention.qkv", "ffn.up", "moe.gate"},
    "mla_up_proj": {"attention.queries", "attention.keys", "attention.values"},
    "mlp": {"ffn.up", "ffn.activation", "ffn.down"},
    "moe": {"moe.top_k", "moe.up", "moe.activation", "moe.down", "moe.merge", "shared.activation", "shared.down"},
    "moe_act": {"moe.down"},
    "shared_experts": {"shared.activation", "shared.down"},
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_keeps_no_more_what_is_its_own(module):
    whole, left = kept(MLA), kept(MLA, recompute=f"modules:{module}")
    assert {name for name, _ in whole} - {name for name, _ in left} == DROPPED[module]
    assert all(left[key] == whole[key] for key in left)


def test_modules_add_up():
    """Norms that are part of a half that is dropped count once."""
    left = kept(MLA, recompute="modules:" + "+".join(MODULES))
    assert {name for name, _ in kept(MLA)} - {name for name, _ in left} == set.union(*DROPPED.values())


def again(model, recompute, **options):
    """FLOPs of products that are run again, and operations by name in the last layer."""
    plain, more = (
        lowered(model, mesh={"dp": 2}, recompute=kind, balancer="even", **options) for kind in ("none", recompute)
    )
    return products(more) - products(plain), names(more, f"again.l{model.layers - 1}")


def test_products_that_are_run_again_are_those_of_the_modules():
    """Multiplications and additions, for each of 64 tokens; nothing of norms and activations."""
    h, heads, at, dense, layers = 64, 8, MLA.latent, 1, MLA.layers
    up = 2 * TOKENS * heads * (at.query_rank * 24 + at.key_value_rank * 28)
    mlp, shared = (2 * TOKENS * 3 * h * width for width in (256, 2 * 128))
    for module, flops in (
        ("mla_up_proj", layers * up),
        ("mlp", dense * mlp),
        ("shared_experts", (layers - dense) * shared),
    ):
        assert again(MLA, f"modules:{module}")[0] == pytest.approx(flops), module
    for module in ("layernorm", "moe_act"):
        assert again(MLA, f"modules:{module}")[0] == 0
    assert again(MLA, "modules:mla_up_proj+mlp")[0] == pytest.approx(layers * up + dense * mlp)


def test_what_is_run_again_stands_in_the_order_of_the_forward_pass():
    assert again(MLA, "modules:layernorm+moe_act")[1] == [".attention.norm", ".moe.norm", ".moe.activation"]
    found = again(MLA, "modules:layernorm+moe")[1]
    assert found.count(".moe.norm") == 1 and found[0] == ".attention.norm", "the half has its norm"
    assert again(MLA, "modules")[1] == [".attention.scores", ".attention.softmax", ".attention.context"]


# --- some layers ----------------------------------------------------------------------------------------------------------

LONG = Model(**{**DENSE.model_dump(), "layers": 12})


@pytest.mark.parametrize(
    ("which", "mesh", "chosen"),
    [
        ("every:3", {"dp": 2}, [0, 3, 6, 9]),
        ("first:5", {"dp": 2}, [0, 1, 2, 3, 4]),
        ("first:1", {"pp": 3}, [0, 4, 8]),
        ("every:3", {"pp": 3}, [0, 3, 6, 9]),
        ("first:9", {"pp": 3}, list(range(12))),
    ],
)
def test_layers_are_chosen(which, mesh, chosen):
    """Their forward passes are run again, and others not."""
    setting = Setting.of(flat(), LONG, plan(mesh=mesh, recompute="full", recompute_layers=which))
    assert [at for at, kind in enumerate(setting.stack) if not kind.kept] == chosen
    if "pp" not in mesh:
        some, all_of_them, none = (
            lowered(LONG, mesh=mesh, **keys)
            for keys in ({"recompute": "full", "recompute_layers": which}, {"recompute": "full"}, {"recompute": "none"})
        )
        each = (products(all_of_them) - products(none)) / 12
        assert products(some) - products(none) == pytest.approx(each * len(chosen))


def test_chunks_have_their_own_first_layers():
    """Parts of three layers, of which the first one each."""
    options = {"pipeline": "interleaved", "chunks": 2, "tokens_per_rank": 128, "micro_batch": 1}
    setting = Setting.of(flat(), LONG, plan(mesh={"pp": 2}, recompute="full", recompute_layers="first:1", **options))
    assert [at for at, kind in enumerate(setting.stack) if not kind.kept] == [0, 3, 6, 9]


@pytest.mark.parametrize("kind", ["full", "selective", "modules:mlp"])
def test_memory_is_that_of_both_kinds_of_layers(kind):
    """Two of twelve layers recompute: the rest keeps all."""
    none, some, all_of_them = (
        sum(kept(LONG, **keys).values())
        for keys in ({}, {"recompute": kind, "recompute_layers": "first:2"}, {"recompute": kind})
    )
    assert some == pytest.approx((10 * none + 2 * all_of_them) / 12) and all_of_them < none


def test_each_stage_keeps_what_its_own_layers_do():
    """The stage in the middle has two layers of four that keep all, and two micro-batches under way."""
    options = {"tokens_per_rank": 128, "micro_batch": 1, "recompute": "full", "recompute_layers": "first:2"}
    setting = Setting.of(flat(), LONG, plan(mesh={"pp": 3}, **options))
    found = sum(line.nbytes for line in account(setting, []).lines if line.kept)
    plain = sum(kept(LONG, tokens_per_rank=32).values()) / 12
    entry = 32 * 64 * 4
    assert np.allclose(found, [each * (2 * plain + 2 * entry) for each in (3, 2, 1)])


def test_experts_of_both_kinds_of_layers_are_counted():
    some = kept(MLA, recompute="modules:moe_act", recompute_layers="first:2")["moe.down", "its input"]
    assert some == pytest.approx(kept(MLA)["moe.down", "its input"] * 2 / 3), (
        "one of three layers with experts drops it"
    )


# --- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recompute": "modules:mpl"}, "--recompute modules:mpl: modules takes core_attn, .*mlp"),
        (
            {"recompute": "full", "recompute_layers": "evry:2"},
            "--recompute-layers evry:2: write all, every:N or first:N",
        ),
        ({"recompute": "full", "recompute_layers": "first:0"}, "--recompute-layers first:0: write all"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(InputError, match=message):
        here(DENSE, **options)


def test_the_runtime_runs_layers_and_halves_again_but_no_operators():
    """Attention's core and whole halves, of some layers too."""
    for recompute in ("modules:core_attn+mlp", "full"):
        assert data_of(here(GATED, recompute=recompute, recompute_layers="every:2"), True, True) == "model"
    with pytest.raises(InputError, match="--recompute modules:layernorm: executed for real are kinds"):
        data_of(here(GATED, recompute="modules:layernorm"), True, True)
    assert RECOMPUTATIONS.find("modules").names == {"core_attn"}
