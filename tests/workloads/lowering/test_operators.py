"""Bytes, FLOPs and messages of every lowered operator against a Transformer in NumPy that counts what it touches."""

from dataclasses import replace

import numpy as np
import pytest
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.step import TrainingStep
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.work import Bookkeeping, Exchange, Gemm, HostSweep, Loop
from oracles.transformer.approximations import NOMINAL, Charge, charges
from oracles.transformer.counting import SIZES, Memory, Message, Operator
from oracles.transformer.model import Transformer, adam
from oracles.transformer.rank import Rank
from oracles.transformer.shapes import FORMATS, Choices, Group
from oracles.transformer.weighing import weigh
from pytest import approx
from support.operators import (
    BESIDE,
    BOTH,
    BOTH_DROPPING,
    CHOICES,
    CHUNKED,
    DENSE,
    DROPPING,
    EXPERTS,
    FURTHER,
    GATED,
    LATENT,
    LENGTH,
    NO_RANK,
    ODD,
    PATCHES,
    SHARED,
    TOKENS,
    WINDOWED,
    made,
)
from support.small_searches import sized
from support.strategies import flat, hosted

ALONE, PLAIN = Group(), Choices()
PARTS = [WINDOWED, CHUNKED, NO_RANK, BESIDE, FURTHER]
MODELS = [DENSE, DROPPING, ODD, GATED, LATENT, EXPERTS, SHARED, CHOICES, BOTH, BOTH_DROPPING, PATCHES, *PARTS]


def lowered(model, group, choices, top_k=None):
    """The operations of a micro-batch and of the update."""
    mesh = {"cp": group.cp, "ep": group.ep, "tp": group.tp * group.side**2}
    options = {
        "mesh": {axis: size for axis, size in mesh.items() if size > 1} or {"dp": 1},
        "tensor": "2d" if group.side > 1 else "1d",
        "sequence_parallel": group.sequence,
        "expert_tensor": "whole" if group.whole else "split",
        "precision": choices.precision,
        "attention": "fused" if choices.fused else "unfused",
        "recompute": choices.recompute,
        "tokens_per_rank": TOKENS * (1 + choices.accumulates),
        "micro_batch": 2 if choices.accumulates else None,
        "zero": "0",
        "balancer": "even",
        "router": "uniform",
        "top_k": top_k,
        "prototypes": top_k if choices.prototypes else None,
    }
    return lower_step(Setting.of(flat(), model, options))[0].operations


def charged(operations):
    """What athanor charges for the operators of the first micro-batch, and what it sends between ranks that share its tokens."""
    found, sent = {}, {}
    for each in operations:
        name = each.name.removeprefix("m0.")
        if isinstance(each.work, Exchange):
            if each.category in ("tensor_parallel", "all_to_all") and not name.endswith("counts"):
                sent[name] = (each.work.operation, each.work.axes, float(np.mean(each.work.nbytes)))
        elif not isinstance(each.work, Loop | Bookkeeping):
            found[name] = Charge(*weigh(each.work), float(np.mean(each.work.flops)))
    kept = [name for name in found if not name.startswith(("m1.", "update."))]
    return {name: found[name] for name in kept}, {
        name: each for name, each in sent.items() if not name.startswith("m1.")
    }


def counted(model, group, choices, top_k=None):
    """What the reference counts, and sends."""
    rank = Rank(model, group, choices, TOKENS, LENGTH)
    transformer = Transformer(rank, top_k)
    transformer.forward()
    transformer.backward()
    messages = [each for each in rank.memory.done if isinstance(each, Message)]
    return rank, {each.name: (each.operation, each.axes, each.nbytes) for each in messages}


def hold(model, group=ALONE, choices=PLAIN, top_k=None):
    """Every operator and message, by name."""
    found, sent = charged(lowered(model, group, choices, top_k))
    rank, messages = counted(model, group, choices, top_k)
    expected = charges(rank.memory.done, rank)
    assert sorted(found) == sorted(expected)
    wrong = {name: (found[name], expected[name]) for name in found if found[name] != approx(expected[name], rel=1e-9)}
    assert not wrong, "what is charged, and what was counted"
    assert sent == {name: (*each[:2], approx(each[2])) for name, each in messages.items()}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_alone(model, fused):
    hold(model, choices=Choices(fused=fused))


@pytest.mark.parametrize("precision", sorted(FORMATS))
@pytest.mark.parametrize("model", [DROPPING, GATED, SHARED, PATCHES, FURTHER], ids=lambda model: model.name)
def test_formats(model, precision):
    hold(model, choices=Choices(precision))
    hold(model, choices=Choices(precision, fused=True, accumulates=True))


GROUPS = {
    "alone": ALONE,
    "tp": Group(tp=2),
    "sequence": Group(tp=2, sequence=True),
    "grid": Group(side=2),
    "cp": Group(cp=2),
    "cp tp": Group(cp=2, tp=2, sequence=True),
    "ep": Group(ep=4),
    "ep tp": Group(ep=2, tp=2),
    "whole": Group(ep=2, tp=2, whole=True),
    "whole cut": Group(ep=2, tp=2, whole=True, sequence=True),
}


def goes_with(model, group):
    """Whether there is such a plan."""
    if model.encoder_layers and group.cp > 1:
        return False
    if group.side > 1:
        return not (model.experts or model.latent or model.further_tokens)
    return bool(model.experts) or group.ep == 1


CUT = [DROPPING, ODD, GATED, LATENT, SHARED, CHOICES, BOTH_DROPPING, WINDOWED, BESIDE, FURTHER]


@pytest.mark.parametrize("precision, fused", [("O0", False), ("layerwise", True)])
@pytest.mark.parametrize(
    "model, group",
    [(model, group) for model in CUT for group in GROUPS if goes_with(model, GROUPS[group])],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_groups(model, group, precision, fused):
    hold(model, GROUPS[group], Choices(precision, fused))


@pytest.mark.parametrize(
    "recompute, fused", [("selective", False), ("selective", True), ("full", False), ("full", True)]
)
@pytest.mark.parametrize("group", ["alone", "sequence"])
@pytest.mark.parametrize("model", [DROPPING, GATED, SHARED, BOTH_DROPPING, FURTHER], ids=lambda model: model.name)
def test_recomputation(model, group, recompute, fused):
    hold(model, GROUPS[group], Choices(recompute=recompute, fused=fused))


@pytest.mark.parametrize("group", ["alone", "sequence"])
@pytest.mark.parametrize("model", [DROPPING, GATED, BOTH_DROPPING], ids=lambda model: model.name)
def test_recomputation_of_every_second_product(model, group):
    hold(model, GROUPS[group], Choices(recompute="products", fused=True))


@pytest.mark.parametrize("recompute", ["selective", "products", "full"])
@pytest.mark.parametrize("model", [DROPPING, GATED], ids=lambda model: model.name)
def test_recomputation_on_a_grid(model, recompute):
    hold(model, GROUPS["grid"], Choices(recompute=recompute, fused=recompute == "products"))


@pytest.mark.parametrize(
    "router, balancer", [("zipf:1.0", "none"), ("uniform", "swipe"), ("zipf:1.2", "capacity:1.25")]
)
def test_what_goes_from_each_rank_to_each_other_adds_up(router, balancer):
    """Tokens sent are those received, back they go the same way; where pairs of ranks are known they say the same."""
    options = {"mesh": {"ep": 4}, "router": router, "balancer": balancer, "tokens_per_rank": TOKENS, "top_k": 2}
    operations = lower_step(Setting.of(flat(), CHOICES, options), pairwise=True)[0].operations
    found = {
        each.name: each.work for each in operations if isinstance(each.work, Exchange) and each.work.pairs is not None
    }
    assert {name.split(".")[2] for name in found} == {"dispatch", "combine"}
    for name, work in found.items():
        sent, received = (
            np.broadcast_to(each, (4,))
            for each in (work.nbytes, work.nbytes if work.received is None else work.received)
        )
        assert received.sum() == approx(sent.sum())
        carried, axis = (received, 1) if name.endswith(("dispatch", "combine.grad")) else (sent, 2)
        assert work.pairs.sum(axis=(0, axis)) == approx(carried), "what experts carry comes to them, and leaves them"
        assert work.pairs.sum() == approx(sent.sum())


@pytest.mark.parametrize("accumulates", [False, True])
def test_panels_that_fit_the_local_memory_read_each_operand_once(accumulates):
    """Processors without tiles weigh products alike, but for sums of gradients, which they charge to nobody."""
    operations = lowered(SHARED, Group(), Choices("fp8", fused=True, accumulates=accumulates))
    works = {each.name: each.work for each in operations if not isinstance(each.work, Exchange | Loop | Bookkeeping)}
    for work in works.values():
        alone = replace(work, onto=0) if isinstance(work, Gemm) else work
        assert weigh(work, tiles=False) == approx(weigh(alone, tiles=True))


@pytest.mark.parametrize("precision", sorted(FORMATS))
@pytest.mark.parametrize("zero", ["0", "1", "2", "3"])
def test_adam(precision, zero):
    """Each part of a model in its own formats; what is sharded is swept in shards."""
    options = {"mesh": {"dp": 4}, "precision": precision, "zero": zero, "tokens_per_rank": TOKENS, "balancer": "even"}
    operations = lower_step(Setting.of(flat(), SHARED, options))[0].operations
    found = {each.name: each.work for each in operations if each.name.startswith("update.adam.")}
    for part, formats in FORMATS[precision].items():
        memory, count = Memory(), getattr(SHARED.parameters, part)
        adam(memory, count, formats)
        (expected,) = memory.done
        ways = 1 if zero == "0" else 4
        assert weigh(found[f"update.adam.{part}"]) == approx((expected.read / ways, expected.written / ways))
        assert found[f"update.adam.{part}"].flops == approx(NOMINAL["adam"] * count / ways)
    assert len(found) == len(FORMATS[precision])


@pytest.mark.parametrize("precision", sorted(FORMATS))
def test_adam_on_the_host(precision):
    """The host's memory is read and written as the accelerator's would be."""
    options = {
        "mesh": {"dp": 4},
        "precision": precision,
        "zero": "1",
        "tokens_per_rank": TOKENS,
        "offload": "optimizer",
    }
    operations = lower_step(Setting.of(hosted(flat()), DENSE, options))[0].operations
    found = sum(each.work.size * each.work.nbytes for each in operations if isinstance(each.work, HostSweep))
    memory = Memory()
    for part, formats in FORMATS[precision].items():
        if count := getattr(DENSE.parameters, part):
            adam(memory, count, formats)
    assert found == approx(sum(each.read + each.written for each in memory.done) / 4)


@pytest.mark.parametrize("precision", ["O0", "O2", "O3", "bf16"])
def test_eight_bits_become_weights(precision):
    """ZeRO++ gathers weights in eight bits: each is read once, and written in the format that it is kept in."""
    options = {"mesh": {"dp": 2, "fsdp": 2}, "precision": precision, "zero": "++", "tokens_per_rank": TOKENS}
    operations = lower_step(Setting.of(flat(), DENSE, options))[0].operations
    size, layer = SIZES[FORMATS[precision]["ffn"].weight], DENSE.of_layer(DENSE.stack[0]).total
    found = [weigh(each.work) for each in operations if each.name.startswith("l0") and each.name.endswith("dequantise")]
    assert found == [approx((layer, size * layer))]


@pytest.mark.parametrize("pipeline", ["1f1b", "gpipe"])
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_both_owners_of_a_tied_embedding_tell_each_other_its_gradient(stages, pipeline):
    options = {"mesh": {"pp": stages, "tp": 2}, "precision": "bf16", "tokens_per_rank": 4 * LENGTH, "micro_batch": 1}
    here = made("tied", layers=stages)
    operations = lower_step(Setting.of(flat(), here, {**options, "pipeline": pipeline, "zero": "0"}))[0].operations
    found = [each for each in operations if isinstance(each.work, Exchange) and "tied" in each.name]
    words = here.vocabulary * here.hidden / 2 * SIZES[FORMATS["bf16"]["embedding"].gradient]
    ways = {"next": 1, "previous": -1}
    pairs = []
    for each in found:
        sends = np.broadcast_to(each.work.nbytes, (stages, 1)).ravel()
        assert set(sends) == {0.0, words}
        pairs += [(stage, (stage + ways[each.work.algorithm]) % stages) for stage in range(stages) if sends[stage]]
    assert pairs == [(stages - 1, 0), (0, stages - 1)], "from whom to whom: stages between have no gradient of it"
    untied = lower_step(Setting.of(flat(), here.model_copy(update={"tied": False}), options))[0].operations
    assert not [each for each in untied if "tied" in each.name]


@pytest.mark.parametrize("choices, most", [(PLAIN, 0.04), (Choices("fp8", fused=True, accumulates=True), 0.08)])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_what_is_left_out_is_little(model, choices, most):
    """All approximations together, in bytes of a micro-batch; and vectors, which nobody is charged for.

    Tokens are few here and weights many, of whose gradients' formats most of it comes: with more tokens it is less.
    """
    rank, _ = counted(model, ALONE, choices)
    operators = [each for each in rank.memory.done if isinstance(each, Operator)]
    truth = sum(each.read + each.written for each in operators)
    charge = sum(each.read + each.written for each in charges(rank.memory.done, rank).values())
    assert charge == approx(truth, rel=most)
    assert sum(each.few for each in operators) < 0.003 * truth


def test_a_fused_kernel_has_the_queries_of_one_stack_and_the_keys_of_the_other():
    """As many as its model says, which the kernel of an accelerator is then measured with; parts are of the keys alone."""
    model = sized("t5-large", decoder_seq_len=32, layers=1, encoder_layers=1)
    setting = Setting.of(
        "cluster-64", model, {"mesh": {"dp": 1}, "seq_len": 128, "tokens_per_rank": 128, "attention": "fused"}
    )
    passes = TrainingStep(setting, 0).bare
    own, cross = passes.attentions(model.stack[-1])
    (encoder,) = passes.attentions(model.stack[0])
    for attention, queries, keys in ((encoder, 128, 128), (own, 32, 32), (cross, 32, 128)):
        for products in (2, 5):
            whole, quarter = attention.fused(products), attention.fused(products, 4)
            assert (whole.queries, whole.keys, whole.products) == (queries, keys, products)
            assert (quarter.queries, quarter.keys, quarter.products) == (queries, keys / 4, products)
