"""Frozen weights and adapters of low rank: what has gradients, what they cost, and what is kept for them."""

from collections import Counter

import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.execute.capabilities import data_of
from athanor.workloads.lowering import lower_step
from athanor.workloads.memory import account
from athanor.workloads.model.flops import forward_flops
from athanor.workloads.model.precision import PARTS
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Role
from athanor.workloads.schedule.work import Exchange, Gemm
from pytest import approx
from support.operators import LENGTH, TOKENS, made
from support.strategies import flat

ALL = {"rank": 3, "targets": ["qkv", "out", "up", "down"]}
PLAIN = made("plain", layers=2, gated=True, kv_heads=2, tied=False)
ADAPTED = made("adapted", layers=2, gated=True, kv_heads=2, tied=False, lora=ALL)
SOME = made("some", layers=2, gated=True, kv_heads=2, tied=False, frozen=["embedding", "attention"])
MANY = made("many", layers=2, experts=8, top_k=2, shared_experts=1, frozen=["expert", "gate"])
BASE = {"precision": "bf16", "attention": "fused", "tokens_per_rank": TOKENS, "balancer": "even", "router": "uniform"}


def setting(model, **options):
    return Setting.of(flat(), model, {"mesh": {"dp": 2}, **BASE, **options})


def operations(model, **options):
    return lower_step(setting(model, **options))[0].operations


def test_adapters_have_a_rank_of_rows_and_of_columns():
    """Of each target, in each layer; a gated FFN's first matrices are one."""
    size = 48 // 4
    shapes = [(48, (4 + 2 * 2) * size), (48, 48), (48, 2 * 80), (80, 48)]
    assert ADAPTED.parameters.adapter == 2 * 3 * sum(map(sum, shapes))
    assert ADAPTED.parameters.total - ADAPTED.parameters.adapter == PLAIN.parameters.total
    assert ADAPTED.trained == {"adapter"} and SOME.trained == {*PARTS} - {"embedding", "attention", "adapter"}


@pytest.mark.parametrize(
    ("model", "tp"),
    [(PLAIN, 1), (PLAIN, 2), (ADAPTED, 1), (ADAPTED, 2), (SOME, 1), (SOME, 2), (MANY, 1)],
    ids=lambda each: getattr(each, "name", each),
)
def test_products_are_the_models_flops(model, tp):
    """Frozen weights have two products for each token instead of three: what is lowered is what is counted."""
    mesh = {"tp": tp} if tp > 1 else {"dp": 2}
    found = [each for each in operations(model, mesh=mesh) if isinstance(each.work, Gemm)]
    expected = forward_flops(model, TOKENS, LENGTH)
    scores = model.layers * 2 * TOKENS * (LENGTH + 1) / 2 * model.heads * (model.query_size + model.value_size)
    assert sum(each.work.flops for each in found) == approx((expected.trained - 3 * scores) / tp)
    of_weights = {each.task.part for each in found if each.task.of_weights}
    whole = {"attention", "ffn", "moe", "shared experts", "output", "adapter"}
    lost = {"adapted": whole - {"adapter"}, "some": {"attention", "output"}, "many": {"moe"}}.get(model.name, set())
    assert not of_weights & lost and of_weights <= whole
    assert of_weights or model is PLAIN


@pytest.mark.parametrize("options", [{}, {"zero": "1"}, {"zero": "2"}, {"overlap": "gradients"}])
def test_only_gradients_of_adapters_are_sent_and_applied(options):
    """Their bytes and no others; the update touches nothing else."""
    found = operations(ADAPTED, **options)
    sums = [each for each in found if each.task.role is Role.GRADIENT_SUM]
    assert sum(each.work.nbytes for each in sums) == approx(4 * ADAPTED.parameters.adapter)
    assert {each.task.part for each in found if each.task.role is Role.OPTIMIZER} == {"adapter"}
    gathers = [each.work.nbytes for each in found if each.task.role is Role.WEIGHT_GATHER]
    assert sum(gathers) == approx(2 * ADAPTED.parameters.adapter * ("zero" in options))


def test_weights_that_are_sharded_still_come_together():
    """ZeRO 3 gathers frozen weights as ever, and reduces gradients of adapters."""
    gathered = {
        model.name: sum(
            each.work.nbytes
            for each in operations(model, zero="3")
            if each.task.role is Role.WEIGHT_GATHER and isinstance(each.work, Exchange)
        )
        for model in (PLAIN, ADAPTED)
    }
    assert gathered["adapted"] > gathered["plain"]


def bytes_of(model, **options):
    here = setting(model, **options)
    found = Counter()
    for line in account(here, []).lines:
        found[line.part, line.name] += float(line.nbytes.max())
    return found


def test_frozen_weights_are_kept_alone():
    """Two bytes of each weight, and of adapters gradients and Adam's state beside: 2 + 4 + 12."""
    plain, adapted = bytes_of(PLAIN), bytes_of(ADAPTED)
    counts = ADAPTED.parameters
    assert sum(nbytes for (part, _), nbytes in adapted.items() if part == "parameters") == 2 * counts.total
    assert {name for part, name in adapted if part in ("gradients", "optimizer")} == {"adapter"}
    assert adapted["gradients", "adapter"] == 4 * counts.adapter
    assert adapted["optimizer", "adapter"] == 12 * counts.adapter
    assert plain["optimizer", "ffn"] == 12 * PLAIN.parameters.ffn


def test_what_only_gradients_of_weights_need_is_not_kept():
    """Inputs of frozen products go, but beside adapters, whose own gradients need them; numbers of their rank are few."""
    plain, adapted, some = (bytes_of(model) for model in (PLAIN, ADAPTED, SOME))
    few = bytes_of(made("few", layers=2, gated=True, kv_heads=2, tied=False, lora={"rank": 3, "targets": ["out"]}))
    inputs = {("activations", name) for name in ("attention.qkv", "ffn.up", "ffn.down")}
    assert inputs <= {*plain} and inputs <= {*adapted} and not inputs & {*few}
    assert inputs & {*some} == inputs - {("activations", "attention.qkv")}
    assert adapted["activations", "adapter.qkv"] == 2 * 2 * TOKENS * 3
    assert adapted["activations", "ffn.activation"] == plain["activations", "ffn.activation"]


@pytest.mark.parametrize("model", [ADAPTED, SOME], ids=lambda model: model.name)
def test_the_runtime_refuses_frozen_weights(model):
    with pytest.raises(
        InputError, match=f"--model {model.name}: has frozen weights; executed for real are models that"
    ):
        data_of(setting(model, precision="O1"), computes=True, real=True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lora": ALL, "experts": 4}, "lora.targets up and down are of dense FFNs"),
        ({"lora": ALL, "encoder_layers": 1}, "lora is for decoders"),
        ({"frozen": [part for part in PARTS if part != "adapter"]}, "nothing is left to train"),
    ],
)
def test_what_cannot_be(keys, message):
    with pytest.raises(ValueError, match=message):
        made("wrong", **keys)
