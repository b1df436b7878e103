"""Formats of gradients and moments by themselves, inputs of products in eight bits, and what DeepSpeed has whole at once."""

from collections import Counter

import pytest
from athanor.hardware.errors import InputError
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.question import Question
from athanor.workloads.lowering import lower
from athanor.workloads.memory import account
from athanor.workloads.model.model import load_model
from athanor.workloads.model.precision import POLICIES, PrecisionSchedule
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.work import Exchange, Sweep
from support.memory_settings import TINY, gpt, gpus, moe, of, setting


def state(**options):
    """Bytes a parameter of gradients and of the optimizer's state."""
    model = gpt(**TINY)
    found = account(setting(model, mesh={"dp": 2}, **options), []).worst
    return found.gradients / model.parameters.total, found.optimizer / model.parameters.total


@pytest.mark.parametrize(("gradients", "each"), [("fp32", 4), ("bf16", 2), ("fp16", 2), (None, 4)])
def test_gradients_have_a_format_of_their_own(gradients, each):
    assert state(precision="bf16", gradients=gradients) == (each, 12)
    assert state(precision="O2", gradients="fp32") == (4, 12), "of any policy"


@pytest.mark.parametrize(("moments", "each"), [("fp32", 12), ("bf16", 8), ("fp16", 8), ("fp8", 6), (None, 12)])
def test_moments_have_a_format_of_their_own(moments, each):
    """A master copy of 4 bytes, and two moments."""
    assert state(precision="bf16", moments=moments) == (4, each)


def test_a_schedule_has_the_named_formats_in_every_policy():
    schedule = PrecisionSchedule.parse("O0:2,layerwise", "bf16", "fp8")
    for iteration, name in ((0, "O0"), (2, "layerwise")):
        for part, formats in schedule.at(iteration).items():
            assert (formats.gradient, formats.moments) == ("bf16", "fp8")
            assert formats.compute == POLICIES[name][part].compute
    assert PrecisionSchedule.parse("O0").at(0) is POLICIES["O0"]


def test_gradients_are_reduced_and_read_in_their_format():
    """Half the bytes over the network, and two bytes a parameter less for the update to read."""

    def found(gradients):
        plan = {"mesh": {"dp": 2}, "precision": "bf16", "gradients": gradients, "zero": "0", "tokens_per_rank": 128}
        works = [each.work for each in lower(gpus(), gpt(**TINY), ranks_per_node=8, **plan).operations]
        reduced = sum(float(each.nbytes) for each in works if isinstance(each, Exchange))
        swept = sum(float(each.size) * each.read for each in works if isinstance(each, Sweep))
        return reduced, swept

    (wide, read), (narrow, less) = found("fp32"), found("bf16")
    assert narrow == wide / 2
    assert read - less >= 2 * gpt(**TINY).parameters.total


def test_unknown_formats_are_refused():
    with pytest.raises(InputError, match="--gradients fp8: no such choice"):
        setting(mesh={"dp": 2}, gradients="fp8")


def sizes(model, precision):
    """Bytes that layers keep, by operator and what it is."""
    found = of(setting(model, gpus(), mesh={"dp": 1}, precision=precision, attention="fused"))
    return Counter({(line.name, line.what): line.nbytes[0] for line in found.lines if line.kept})


@pytest.mark.parametrize("kind", ["dense", "experts", "latent"])
def test_inputs_of_products_in_eight_bits_are_kept_so(kind):
    """Half of bf16; the output of attention, which its kernel needs as well, is kept in both."""
    keys = {"dropout": False, "gated": True}
    narrow = {"query_rank": 16, "key_value_rank": 8, "plain": 8, "rotary": 4, "value": 8}
    model = moe(**keys) if kind == "experts" else gpt(**TINY, **keys, latent=narrow if kind == "latent" else None)
    wide, short = sizes(model, "bf16"), sizes(model, "fp8")
    up, down = ("moe.up", "moe.down") if kind == "experts" else ("ffn.up", "ffn.down")
    halved = {("attention.qkv", "its input"), (up, "its input"), (down, "its input")}
    assert {key for key in wide if short[key] == wide[key] / 2} == halved
    assert short["attention.out", "its input, cast"] == wide["attention.out", "its input"] / 2
    other = {key for key in wide if short[key] != wide[key]} - halved
    assert other == ({("attention.narrow", "narrow queries, keys and values")} if kind == "latent" else set())
    if kind == "latent":
        name = ("attention.narrow", "narrow queries, keys and values")
        assert wide[name] - short[name] == 8 * 128 * (16 + 8), "inputs of wide products, and not what their norms see"


def test_deepspeed_has_no_more_whole_at_once_than_its_limits():
    """1e9 parameters and 5e8 gradients, or the largest tensor; others two layers, and one."""
    model = gpt(2, 16384, 64, vocabulary=512, seq_len=32)

    def other(framework):
        here = Setting.of("selene", model, {"mesh": {"dp": 8}, "zero": "3", "precision": "O2", "framework": framework})
        names = (("weights", "layers"), ("gradients", "a"))
        lines = {(line.name, line.what.split()[0]): line.nbytes[0] for line in account(here, []).lines}
        return [lines[name] for name in names]

    tensor = 4 * 16384 * 16384
    assert other("deepspeed") == [2 * max(1e9, tensor), 2 * max(5e8, tensor)]
    assert other("megatron") == pytest.approx([2 * 2 * 12 * 16384**2, 2 * 12 * 16384**2], rel=1e-3)


@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_inputs_of_activations_may_wait_in_eight_bits(kind):
    """One byte instead of two, and nothing else."""
    model = moe(gated=True) if kind == "experts" else gpt(**TINY, gated=True)

    def kept(**options):
        found = of(setting(model, gpus(), mesh={"dp": 1}, precision="bf16", **options)).lines
        return {(line.name, line.what): line.nbytes[0] for line in found if line.kept}

    wide, short = kept(), kept(activations="fp8")
    at = ("moe.activation" if kind == "experts" else "ffn.activation", "its input")
    assert short == {**wide, at: wide[at] / 2}


def test_the_plan_of_deepseek_v3_fits_as_its_authors_ran_it():
    """With moments in bf16, inputs of SwiGLU in eight bits, and norms, up-projections and SwiGLU run again; not without."""
    model = load_model("deepseek-v3")

    def need(**options):
        here = Setting.of("deepseek-h800", model.model_copy(update={"plan": {}}), {**model.plan, **options})
        sizes = here.mesh.ranks, here.ranks_per_node
        return Estimator(Question(here.machine, here.model, *sizes, {}, {}, {}, here.processor.memory)).memory(here)

    assert need().fits and need().allocated > 70e9
    assert not need(recompute="none").fits
    assert not need(moments=None, activations=None, recompute="modules:layernorm").fits
