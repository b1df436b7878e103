"""What strategies compute: closed forms of the papers against the products of the lowered schedule."""

from dataclasses import replace

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.tiles import Tiles
from athanor.workloads.model.flops import causal_share
from athanor.workloads.model.model import Model
from athanor.workloads.schedule.costs import Costs
from athanor.workloads.schedule.work import FusedAttention
from pytest import approx
from support.recomputation import OWN
from support.strategies import (
    BOTH,
    DENSE,
    EXPERTS,
    GATED,
    LATENT,
    SHAPE,
    SHARED,
    flat,
    lowered,
    names,
    products,
    simulated,
)

TOKENS, LENGTH = 64, 32
B, S, H, L, V = TOKENS / LENGTH, LENGTH, DENSE.hidden, DENSE.layers, DENSE.vocabulary


class TestRecomputation:
    def test_nothing_is_worked_out_again(self):
        """72 B s l h² (1 + s/6h + V/12lh): three forward passes of Narayanan et al. 2021, whose own form has the fourth."""
        assert products(lowered(mesh={"dp": 1})) == approx(72 * B * S * L * H**2 * (1 + S / (6 * H) + V / (12 * L * H)))

    def test_full(self):
        """96 B s l h² (1 + s/6h + V/16lh), Narayanan et al. 2021, equation 3."""
        found = products(lowered(mesh={"dp": 1}, recompute="full"))
        assert found == approx(96 * B * S * L * H**2 * (1 + S / (6 * H) + V / (16 * L * H)))

    def test_selective(self):
        """Scores and context once more, 4 b s² h a layer (Korthikanti et al. 2022, appendix A)."""
        none, selective = (lowered(mesh={"dp": 1}, recompute=which) for which in ("none", "selective"))
        assert products(selective) - products(none) == approx(4 * B * S**2 * H * L)
        assert names(selective, "again.l1.attention") == [".scores", ".softmax", ".context"]

    def test_the_feed_forward_network_alone(self):
        """Its two products of 8 B s h² FLOPs a layer once more."""
        none, own = (lowered(mesh={"dp": 1}, recompute=which) for which in ("none", OWN))
        assert products(own) - products(none) == approx(16 * B * S * L * H**2)

    def test_a_half_happens_again_as_it_was(self):
        """With its exchanges, in the backward pass; tokens go to the experts that they went to."""
        for model, mesh in ((DENSE, {"tp": 4}), (GATED, {"tp": 2}), (EXPERTS, {"ep": 4})):
            schedule = lowered(model, mesh=mesh, recompute=OWN)
            half = "moe" if model is EXPERTS else "ffn"
            routing = (".counts", ".swipe")
            forward = [name for name in names(schedule, f"l1.{half}") if not name.startswith(routing)]
            again = names(schedule, f"again.l1.{half}")
            assert again and again == forward[: len(again)]
            assert names(schedule, "again.l1") == [f".{half}{each}" for each in again], "nothing else does"

    def test_it_all_happens_again_on_every_rank(self):
        """Model-parallel ranks repeat their exchanges too; routing is known already."""
        for model, mesh in ((DENSE, {"tp": 4}), (DENSE, {"cp": 4}), (EXPERTS, {"ep": 4})):
            schedule = lowered(model, mesh=mesh, recompute="full")
            again = names(schedule, "again.l0")
            routing = [".moe." + each for each in ("counts", "swipe")]
            forward = [name for name in names(schedule, "l0") if not name.startswith(tuple(routing))]
            assert again == forward[: len(again)]
            assert again[-1] in (".ffn.residual", ".moe.merge")

    def test_a_fused_kernel_works_scores_out_by_itself(self):
        """Two products forward, five backward, one of which repeats the scores (Dao et al. 2022)."""
        apart, fused = (lowered(mesh={"dp": 1}, attention=which) for which in ("unfused", "fused"))
        kernels = [each.work for each in fused.operations if isinstance(each.work, FusedAttention)]
        assert [each.products for each in kernels] == [2] * L + [5] * L
        core, left = sum(each.flops for each in kernels), np.tri(S).mean()
        assert core == approx(7 * 2 * B * S**2 * H * L * left)
        assert products(fused) + core / left == approx(products(apart) + 2 * B * S**2 * H * L)
        assert lowered(mesh={"dp": 1}, attention="fused", recompute="selective").operations == fused.operations


class TestCausalMask:
    @pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 9), (4, 9), (9, 9), (1024, 1024)])
    def test_what_it_leaves(self, queries, keys):
        """Every one of the last tokens sees itself and all before it."""
        seen = np.arange(keys) <= np.arange(keys - queries, keys)[:, None]
        assert causal_share(queries, keys) == approx(seen.mean())

    @pytest.mark.parametrize("mesh", [{"dp": 1}, {"cp": 4}], ids=str)
    def test_a_fused_kernel_skips_the_rest_unless_the_model_reads_both_ways(self, mesh):
        """Also over parts of a sequence, and on a machine without tiles, where its time is that of its FLOPs."""
        both = Model(name="both", **SHAPE, causal=False)
        core = [_core(lowered(each, mesh=mesh, attention="fused")) * mesh.get("cp", 1) for each in (DENSE, both)]
        assert core == [approx(7 * 2 * B * S**2 * H * L * part) for part in ((S + 1) / (2 * S), 1.0)]

    def test_only_the_decoder_s_own_is_masked(self):
        kernels = [each for each in lowered(BOTH, mesh={"dp": 1}, attention="fused").operations if _is_kernel(each)]
        long, short = LENGTH, BOTH.decoder_seq_len
        shares = {(each.work.queries, each.work.keys): each.work.share for each in kernels}
        assert shares == {(long, long): 1.0, (short, long): 1.0, (short, short): approx((short + 1) / (2 * short))}

    def test_time_follows_on_every_machine(self):
        """A machine with tiles says its rate on full scores under a mask, so that a kernel without one takes twice as long."""
        plain = flat().core_group
        tiles = Tiles(shapes=((64, 64),), fill=0.0, cache_bandwidth=1e30, attention=0.5)
        groups = (plain, plain.model_copy(update={"tiles": tiles}))
        full = FusedAttention(4096.0, 4096.0, 64.0, 64.0, 64.0, 2, "fp32")
        masked = replace(full, share=causal_share(4096, 4096))
        for group in groups:
            here = flat().model_copy(update={"core_group": group})
            costs = Costs(here, here.node.core_groups)
            assert costs.of(full).seconds == approx(costs.of(masked).seconds / masked.share)
            if group.tiles:
                assert costs.of(masked).seconds == approx(full.flops / (0.5 * group.peak["fp32"]), rel=1e-3)


def _is_kernel(operation):
    return isinstance(operation.work, FusedAttention)


def _core(schedule):
    return sum(each.work.flops for each in schedule.operations if _is_kernel(each))


def active(model, layer):
    """Parameters of a layer that each token meets in products: no norms, no biases, of the experts those that are chosen."""
    counts = model.of_layer(layer)
    chosen = model.top_k * model.expert_size if layer.moe else 0
    return counts.attention + counts.ffn + counts.gate + chosen


@pytest.mark.parametrize("model", [DENSE, GATED, LATENT, EXPERTS, SHARED], ids=lambda model: model.name)
@pytest.mark.parametrize("mesh", [{"dp": 1}, {"dp": 2, "tp": 2}, {"cp": 2}], ids=str)
def test_a_forward_pass_is_two_flops_for_each_active_parameter_and_attention(model, mesh):
    schedule = lowered(model, mesh=mesh)
    whole = products(schedule, "forward") * mesh.get("tp", 1) * mesh.get("cp", 1)
    scores = model.heads * (model.query_size + model.value_size) * LENGTH
    layers = sum(active(model, layer) + scores for layer in model.stack)
    expected = 2 * TOKENS * (layers + model.vocabulary * model.hidden)
    if "tp" in mesh:  # what is not cut is computed on every rank of tp
        expected += 2 * TOKENS * sum(_uncut(model, layer) for layer in model.stack)
    assert whole == approx(expected)
    backward = products(schedule, "backward") * mesh.get("tp", 1) * mesh.get("cp", 1)
    assert backward == approx(2 * whole)


def _uncut(model, layer):
    narrow = 0
    if model.latent:
        at = model.latent
        narrow = model.hidden * (at.query_rank + at.key_value_rank + at.rotary)
    return narrow + model.of_layer(layer).gate


def test_an_encoder_and_a_decoder_of_another_length():
    """Cross-attention makes keys and values of the encoder's tokens, and queries of the decoder's."""
    schedule = lowered(BOTH, mesh={"dp": 1})
    long, short, h = TOKENS, TOKENS / 2, BOTH.hidden
    encoder = 3 * long * (12 * h**2 + 2 * 32 * h)
    own = 2 * short * (12 * h**2 + 2 * 16 * h)
    cross = 2 * (short * (2 * h**2 + 2 * 32 * h) + long * 2 * h**2)
    logits = short * h * BOTH.vocabulary
    assert products(schedule, "forward") == approx(2 * (encoder + own + cross + logits))
    assert products(schedule, "backward") == approx(2 * products(schedule, "forward"))
    assert names(schedule, "encoder") == [".norm", ".norm.grad"]
    assert names(schedule, "embedding") == [".lookup", ".decoder.lookup", ".decoder.grad", ".grad"]


def test_patches_of_images_are_projected():
    model = Model(**SHAPE, name="patches", patches=16, patch_values=48)
    plain, seeing = (products(lowered(each, mesh={"dp": 1})) for each in (DENSE, model))
    assert seeing - plain == approx(2 * 2 * (TOKENS / 2) * 48 * H), "forward, and the gradient of the weight"


def test_rates_count_every_rank():
    summary = simulated(mesh={"dp": 2, "tp": 4}, machine=flat())
    schedule = lowered(mesh={"dp": 2, "tp": 4})
    assert summary["flops_per_step"] == approx(schedule.total_flops())
    assert summary["tokens_per_second"] == approx(2 * TOKENS / summary["step_seconds"]), "four ranks share tokens"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"kv_heads": 3}, "heads = 8 is no multiple of kv_heads = 3"),
        ({"top_k": 20, "experts": 16}, "top_k = 20 exceeds the 16 experts of a layer"),
        ({"decoder_seq_len": 16}, "decoder_seq_len is for models with encoder_layers"),
    ],
)
def test_shapes_that_cannot_be(shape, message):
    with pytest.raises(ValueError, match=message):
        Model(**{**SHAPE, **shape}, name="wrong")


def test_a_machine_without_a_precision_says_which_it_has():
    with pytest.raises(InputError, match=r"--precision: the machine has no bf16 \(fp64, fp32, fp16\)"):
        simulated(mesh={"dp": 1}, precision="bf16")
