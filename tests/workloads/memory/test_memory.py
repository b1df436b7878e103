"""Memory: formulas of its sources, row by row, and laws."""

from collections import Counter
from math import inf

import numpy as np
import pytest
from athanor.hardware.errors import DoesNotFit
from athanor.workloads.lowering import lower
from athanor.workloads.lowering.data_parallel.sharding import held as held_of
from athanor.workloads.memory import PARTS, Account, memory, require_fit, sample_loads
from athanor.workloads.memory.activations import Saved
from athanor.workloads.memory.stages import MemoryStages, in_flight
from athanor.workloads.model.model import Latent, Layer
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.pipelines import PIPELINES, most_in_flight
from athanor.workloads.schedule.work import Exchange
from support.memory_settings import GB, TINY, gpt, gpus, layers_keep, moe, need, of, setting
from support.recomputation import OWN

# --- activations: Korthikanti et al. 2022 ------------------------------------------------------------------------------


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize(("layers", "h", "a", "s", "b"), [(1, 64, 4, 32, 3), (4, 256, 8, 128, 1)])
def test_a_layer_keeps_what_the_formulas_of_korthikanti_say(layers, h, a, s, b, tp):
    model = gpt(layers, h, a, vocabulary=512, seq_len=s)

    def kept(**options):
        here = setting(model, mesh={"dp": 1, "tp": tp}, tokens_per_rank=b * s, micro_batch=b, **options)
        return layers_keep(here) / layers / (s * b * h)

    cut = {"sequence_parallel": True} if tp > 1 else {}
    assert kept() == pytest.approx(10 + 24 / tp + 5 * a * s / h / tp)
    assert kept(**cut) == pytest.approx((34 + 5 * a * s / h) / tp)
    assert kept(recompute="selective", **cut) == pytest.approx(34 / tp)
    assert kept(recompute=OWN, **cut) == pytest.approx((15 + 5 * a * s / h) / tp), (
        "19 s·b·h are of the FFN, 2 its norm's input"
    )
    assert kept(recompute="full") == pytest.approx(2)
    assert kept(recompute="full", **cut) == pytest.approx(2 / tp)


def test_the_ends_of_a_model_keep_what_section_4_3_says():
    """s·b·h·p/t for the embedding's mask with p micro-batches under way, and 4 s·b·h/t (1 + v/h) at the output."""
    model = gpt(**TINY)
    tokens, h, v = 64, model.hidden, model.vocabulary
    options = {"mesh": {"pp": 4, "dp": 1, "tp": 2}, "sequence_parallel": True, "micro_batch": 2, "tokens_per_rank": 512}
    found = of(setting(model, **options))
    size = {line.name: line.nbytes for line in found.lines}
    masks = [line for line in found.lines if line.what == "mask of the dropout" and line.name == "embedding"]
    assert list(masks[0].nbytes) == [4 * tokens * h / 2, 0, 0, 0]
    ends = [size[name][3] for name in ("output.norm", "output.logits", "output.loss")]
    assert sum(ends) == pytest.approx(4 * tokens * h / 2 * (1 + v / h))
    assert not size["output.loss"][:3].any()


def rows(kind=None, formats="O2", **options):
    """Rows of one layer by operator."""
    here = setting(**options)
    return {row.operator: row.nbytes for row in Saved.of(here, POLICIES[formats]).layer(kind or here.model.stack[-1])}


def test_grouped_queries_keep_fewer_keys():
    many, few = rows(model=gpt(**TINY), mesh={"dp": 1}), rows(model=gpt(**TINY, kv_heads=2), mesh={"dp": 1})
    assert few["attention.keys"] * 4 == many["attention.keys"] == many["attention.queries"]
    one = rows(model=gpt(**TINY, kv_heads=2), mesh={"dp": 1, "tp": 8})
    assert one["attention.keys"] == few["attention.keys"] / 2, "a rank has one head of keys at least"


def test_a_gated_ffn_keeps_one_width_more():
    plain, gated = rows(model=gpt(**TINY), mesh={"dp": 1}), rows(model=gpt(**TINY, gated=True), mesh={"dp": 1})
    assert gated["ffn.activation"] == 2 * plain["ffn.activation"] and gated["ffn.down"] == plain["ffn.down"]


def test_a_fused_kernel_keeps_no_scores():
    fused = rows(model=gpt(**TINY), mesh={"dp": 1}, attention="fused")
    assert not {"attention.softmax", "attention.dropout"} & set(fused)
    assert fused["attention.context"] == 128 * 8 * 4, "one number for each query and head"


def test_parts_of_a_sequence_keep_their_share():
    """Ring self-attention: every row falls as 1/n, scores too (Li et al. 2021)."""
    whole, parts = rows(mesh={"dp": 1}), rows(mesh={"dp": 1, "cp": 4})
    assert parts == pytest.approx({name: size / 4 for name, size in whole.items()})


def test_a_grid_cuts_every_row():
    """Activations at 1/q² (Xu et al. 2021); in one dimension those of the residual stream stay whole."""
    whole, grid = rows(mesh={"dp": 1}), rows(mesh={"dp": 1, "tp": 4}, tensor="2d")
    assert grid == pytest.approx({name: size / 4 for name, size in whole.items()})
    assert rows(mesh={"dp": 1, "tp": 4})["ffn.norm"] == whole["ffn.norm"]


def test_latent_attention_keeps_its_narrow_layers():
    latent = Latent(query_rank=32, key_value_rank=16, plain=8, rotary=4, value=8)
    found = rows(model=gpt(**TINY, latent=latent), mesh={"dp": 1})
    assert found["attention.narrow"] == 128 * (2 * (32 + 16) + 4) * 2
    assert found["attention.keys"] == 128 * 8 * 12 * 2 and found["attention.values"] == 128 * 8 * 8 * 2


def test_a_decoder_keeps_queries_of_its_own_and_keys_of_the_encoder():
    model = gpt(**TINY, encoder_layers=2, decoder_seq_len=8)
    found = rows(Layer(cross=True), model=model, mesh={"dp": 1})
    assert found["cross.keys"] == 4 * found["cross.queries"] == 4 * found["attention.keys"]
    assert found["cross.softmax"] == 4 * found["attention.softmax"]
    assert rows(Layer(encoder=True), model=model, mesh={"dp": 1})["attention.norm"] == 4 * found["attention.norm"]


def test_experts_keep_tokens_that_they_carry():
    even = of(setting(moe(), mesh={"ep": 4, "dp": 2}, balancer="swipe"))
    size = {line.name: float(line.nbytes[0]) for line in even.lines if line.part == "activations"}
    assert size["moe.up"] == 8 * 128 * 64 * 2 and size["moe.down"] == 8 * 128 * 128 * 2
    hot = need(moe(), mesh={"ep": 4, "dp": 2}, balancer="none", router="zipf:1.5")
    assert hot.activations > even.worst.activations
    twice = of(setting(moe(), mesh={"ep": 4, "dp": 2}, balancer="swipe", top_k=2))
    assert {line.name: line.nbytes[0] for line in twice.lines}["moe.merge"] == 2 * size["moe.merge"]


def test_experts_beside_tensor_parallelism():
    """Split: each rank of tp has a part of the width of all; whole: its own tokens, in full width."""
    split = rows(model=moe(shared_experts=1), mesh={"ep": 2, "tp": 2})
    whole = rows(model=moe(shared_experts=1), mesh={"ep": 2, "tp": 2}, expert_tensor="whole")
    assert whole["moe.down"] == 2 * split["moe.down"] and whole["moe.up"] == split["moe.up"]
    assert whole["moe.gate"] == split["moe.gate"] / 2 and whole["shared.down"] == split["shared.down"]
    carried = [
        sum(load.received for load in sample_loads(setting(moe(), mesh={"ep": 2, "tp": 2}, expert_tensor=way)))
        for way in ("split", "whole")
    ]
    assert carried[0] == 2 * carried[1]


@pytest.mark.parametrize("degree", ["1", "2", "4"])
def test_ranks_hold_their_part_of_all_experts(degree):
    """Total / (ep x etp), where ep counts the groups of tp: however experts are cut."""
    plan = {"mesh": {"ep": 2, "tp": 4}, "expert_tensor": degree}
    (held,) = [each for each in held_of(setting(moe(), **plan)) if each.part == "expert"]
    assert held.parameters == moe().parameters.expert / (2 * 4)
    found, split = rows(model=moe(), **plan), rows(model=moe(), mesh={"ep": 2, "tp": 4})
    groups = 4 // int(degree)
    assert found["moe.gate"] == split["moe.gate"] / groups and found["moe.up"] == split["moe.up"]
    assert found["moe.down"] == split["moe.down"] * groups


def test_experts_over_cp_are_held_once_in_it():
    """Weights, gradients and state of experts by half where they lie over both ranks of cp; what they carry stays as it is."""
    mesh = {"dp": 2, "ep": 2, "cp": 2}
    copies, spread = (rows(model=moe(), mesh=mesh, expert_context=way) for way in ("copies", "spread"))
    assert spread["moe.down"] == copies["moe.down"] and spread["moe.up"] == copies["moe.up"]
    copies, spread = (of(setting(moe(), mesh=mesh, expert_context=way)) for way in ("copies", "spread"))
    state = ("parameters", "gradients", "optimizer")
    kept = [
        {(line.part, line.name): float(line.nbytes[0]) for line in each.lines if line.part in state}
        for each in (copies, spread)
    ]
    experts = {key for key in kept[0] if kept[0][key] != kept[1][key]}
    assert {part for part, _ in experts} == set(state)
    assert all(kept[0][key] == 2 * kept[1][key] for key in experts if key[0] != "gradients")


# --- pipelines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 2), (4, 4), (4, 8), (4, 16), (4, 24)])
def test_few_micro_batches_show_what_is_under_way(name, stages, micro_batches):
    """Memory looks at a short order; the whole one has as many under way."""
    pipeline, chunks = PIPELINES[name], 2 if name == "interleaved" else 1
    many = 10 * stages if pipeline.asynchronous else micro_batches
    whole = [most_in_flight(order) for order in pipeline.orders(stages, many, chunks)]
    expected = [[each.get(chunk, 0) for chunk in range(chunks)] for each in whole]
    assert in_flight(pipeline, stages, micro_batches, chunks).tolist() == expected


def test_stages_hold_as_many_micro_batches_as_their_schedule_says():
    plan = {"mesh": {"pp": 4, "dp": 1}, "tokens_per_rank": 512, "micro_batch": 1}
    held = {
        name: MemoryStages(setting(pipeline=name, **plan)).flight[:, 0].tolist() for name in ("gpipe", "1f1b", "zb-h2")
    }
    assert held == {"gpipe": [16] * 4, "1f1b": [4, 3, 2, 1], "zb-h2": [7] * 4}
    one, four = (layers_keep(setting(pipeline="1f1b", **plan), stage) for stage in (3, 0))
    assert four == 4 * one


def test_asynchronous_pipelines_keep_versions_of_weights():
    plan = {"mesh": {"pp": 4, "dp": 1}, "tokens_per_rank": 512, "micro_batch": 1}
    held = {name: of(setting(pipeline=name, **plan)).by_stage for name in ("1f1b", "pipedream", "2bw")}
    for stage in range(4):
        one = held["1f1b"][stage]
        assert held["pipedream"][stage].parameters == (4 - stage) * one.parameters
        assert held["2bw"][stage].parameters == 2 * one.parameters
        assert held["2bw"][stage].optimizer == one.optimizer
    assert held["1f1b"][0].parameters > held["1f1b"][1].parameters, "the embedding"


def test_the_fullest_stage_counts():
    found = of(setting(mesh={"pp": 4, "dp": 2}, tokens_per_rank=512, micro_batch=1))
    assert memory(found.setting, []) == found.worst == max(found.by_stage, key=lambda one: one.total)
    assert found.worst.stage == 0


# --- parameters, gradients, optimizer ----------------------------------------------------------------------------------


def test_what_zero_shards_is_whole_for_a_layer_at_a_time():
    model = gpt(**TINY)
    layer = model.of_layer(Layer()).total
    found = {
        line.name: line.nbytes[0] for line in of(setting(model, mesh={"dp": 8}, zero="3")).lines if line.part == "other"
    }
    assert found["weights"] == 2 * 2 * layer and found["gradients"] == 2 * layer
    assert "weights" not in {
        line.name for line in of(setting(model, mesh={"dp": 8}, zero="2")).lines if line.part == "other"
    }


def test_zero_plus_plus_keeps_a_second_shard_in_the_node():
    model = gpt(**TINY)
    count = model.parameters.total
    found = need(model, mesh={"dp": 4, "fsdp": 8}, zero="++")
    assert found.parameters == pytest.approx(2 * count / 32 + 2 * count / 8)
    assert found.optimizer == pytest.approx(12 * count / 32) and found.gradients == pytest.approx(2 * count / 32)
    near = need(model, mesh={"dp": 4, "fsdp": 8}, zero="3")
    assert near.parameters == pytest.approx(2 * count / 8), "shards span fsdp, dp replicates"


def test_tensor_parallelism_cuts_matrices_and_not_norms():
    model = gpt(**TINY)
    one, eight = need(model, mesh={"dp": 1}), need(model, mesh={"dp": 1, "tp": 8})
    norm = model.parameters.norm
    assert eight.parameters == pytest.approx((one.parameters - 2 * norm) / 8 + 2 * norm)


def test_zero_1_and_2_leave_the_volume_and_3_takes_half_as_much_again():
    """K14: 2 (n - 1)/n of the gradients, as an all-reduce has it; with sharded weights 3."""
    model = gpt(**TINY)

    def volume(level):
        schedule = lower(
            gpus(), model, mesh={"dp": 8}, zero=level, precision="O2", tokens_per_rank=128, ranks_per_node=8
        )
        works = [each.work for each in schedule.operations if isinstance(each.work, Exchange)]
        return sum(float(work.nbytes) * (2 if work.operation == "all-reduce" else 1) for work in works)

    assert volume("0") == 2 * 2 * model.parameters.total
    assert volume("1") == volume("2") == pytest.approx(volume("0")) and volume("3") == pytest.approx(1.5 * volume("0"))


# --- host memory -------------------------------------------------------------------------------------------------------

HOST = gpus(host=64 * GB)


def test_zero_offload_leaves_2_of_16_bytes():
    """Ren et al. 2021, section 4: weights stay, state and gradients go."""
    model = gpt(**TINY)
    count = model.parameters.total
    found = need(model, HOST, mesh={"dp": 4}, zero="2", offload="optimizer")
    assert (found.parameters, found.gradients, found.optimizer) == (2 * count, 0, 0)
    assert found.host == pytest.approx(14 * count / 4) and found.host_capacity == 16 * GB  # four ranks share 64
    late = need(model, HOST, mesh={"dp": 4}, zero="2", offload="optimizer", offload_delay=True)
    assert late.host - found.host == pytest.approx(2 * count / 4), "gradients of two steps"
    many = need(model, HOST, mesh={"dp": 4}, offload="optimizer", micro_batch=1)
    assert many.gradients == 2 * count, "micro-batches add up their gradients on the device"


def test_what_is_offloaded_is_not_lost():
    """Parameters and activations: the device has less by what the host has, but for the layers at hand."""
    model = gpt(**TINY)
    bare = need(model, HOST, mesh={"dp": 4}, recompute="full")
    away = need(model, HOST, mesh={"dp": 4}, recompute="full", offload="parameters")
    assert away.host == 2 * (model.parameters.total - (model.of_input + model.of_output).total)
    assert bare.parameters - away.parameters == away.host
    assert away.other - bare.other == 2 * 2 * model.of_layer(Layer()).total
    half = need(model, HOST, mesh={"dp": 4}, recompute="full", offload="parameters:0.5")
    assert half.host == away.host / 2
    assert half.other - bare.other == (away.other - bare.other) / 2
    inputs = need(model, HOST, mesh={"dp": 4}, recompute="full", offload="activations")
    each = 128 * 64 * 2
    assert inputs.host == 8 * each and bare.activations - inputs.activations == 6 * each


def test_experts_in_host_memory():
    found = need(moe(), HOST, mesh={"ep": 4}, offload="experts")
    experts = moe().parameters.expert / 4 * 2
    assert found.host == experts
    bare = need(moe(), HOST, mesh={"ep": 4})
    assert bare.parameters - found.parameters == experts and found.other - bare.other == 2 * experts / 8


def test_host_memory_can_be_too_small():
    here = setting(gpt(**TINY), gpus(host=1e6), mesh={"dp": 4}, offload="optimizer")
    found = memory(here, [])
    assert not found.fits and found.total < found.capacity
    with pytest.raises(DoesNotFit, match=r": 0\.0 GB of host memory of 0\.0 GB a rank"):
        require_fit(here, [], found)


# --- buffers -----------------------------------------------------------------------------------------------------------


def test_a_machine_may_keep_some_memory_for_itself():
    assert need(machine=gpus(reserved=2e9), mesh={"dp": 1}).other - need(mesh={"dp": 1}).other == 2e9


def test_exchanges_have_buffers():
    def other(**options):
        return {line.name: line.nbytes[0] for line in of(setting(**options)).lines if line.part == "other"}

    assert other(mesh={"dp": 1, "tp": 2}, sequence_parallel=True)["gather"] == 128 * 64 * 2
    assert other(mesh={"dp": 1, "cp": 4})["ring"] == 5 * 32 * 64 * 2
    assert other(mesh={"dp": 1, "cp": 4}, attention="fused")["ring"] == 4 * 2 * 32 * 64 * 2
    assert other(mesh={"dp": 1, "tp": 4}, tensor="2d")["summa"] == (64 * 256 / 2 + 64 * 256 / 4) * 2
    assert other(model=moe(), mesh={"ep": 4})["all-to-all"] == 2 * 128 * 64 * 2
    assert set(other(mesh={"dp": 4})) == {"output.loss"}


def test_lines_add_up():
    here = setting(gpt(**TINY), HOST, mesh={"pp": 2, "dp": 2, "tp": 2}, micro_batch=1, zero="1", offload="optimizer")
    found = Account(here, [], POLICIES["O2"])
    for one in found.by_stage:
        mine = [line.nbytes[one.stage] for line in found.lines if not line.host]
        assert one.total == pytest.approx(sum(mine))
        assert one.host == pytest.approx(sum(line.nbytes[one.stage] for line in found.lines if line.host))
    assert found.worst.table().keys() == {*PARTS, "total", "capacity"}
    assert need(mesh={"dp": 1}).host_capacity == inf


MIXED = {"moe_every": 2, "dense_first": 1}
IN_BOTH_STACKS = {"encoder_layers": 4, "decoder_seq_len": 8}


@pytest.mark.parametrize("keys", [{}, MIXED, IN_BOTH_STACKS], ids=str)
def test_a_stack_keeps_what_its_layers_keep(keys):
    """Tensor by tensor, one layer after another: of layers of different kinds the same tensors add up."""
    here = setting(moe(**keys), mesh={"ep": 4}, balancer="swipe")
    found = {(line.name, line.what): line.nbytes[0] for line in of(here).lines if line.part == "activations"}
    saved, loads, expected = Saved.of(here, POLICIES["O2"]), iter(sample_loads(here)), Counter()
    for kind in here.model.stack:
        tokens = float(np.max(next(loads).received)) if kind.moe else 0.0
        for row in saved.layer(kind):
            expected[row.operator, row.what] += row.size(tokens)
    assert expected.keys() <= found.keys()
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_stages_without_experts_carry_no_tokens():
    here = setting(moe(dense_first=4), mesh={"pp": 2, "ep": 2}, balancer="swipe", micro_batch=1)
    first, last = MemoryStages(here).carried(sample_loads(here), here.model.stack[-1])
    assert first == 0 < last
