"""Products on GPUs: tiles, waves, memory, sums of gradients; and what else only they are charged."""

import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.simulate import simulate
from athanor.workloads.lowering import lower_step
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.balancers import BALANCERS
from athanor.workloads.schedule.work import Exchange, Gemm, PipelineWork

SELENE = load_machine("selene")
PROCESSOR = SELENE.processor(8)
ONE_SHAPE = SELENE.changed({"core_group.tiles.shapes": [[128, 128]]}).processor(8)
DEEP = 65536.0


def seconds(processor, m, n, k, count=1.0, **options):
    return float(processor.gemm(m, n, k, count, "fp16", **options).seconds)


def tiles(down, across):
    """Seconds of a product whose C has so many tiles, far from what memory bounds."""
    return seconds(ONE_SHAPE, 128.0 * down, 128.0 * across, DEEP)


def test_the_last_wave_takes_as_long_as_a_full_one():
    one = tiles(9, 12)  # 108 multiprocessors
    assert tiles(10, 11) == pytest.approx(2 * one, rel=1e-9)
    assert tiles(24, 36) == pytest.approx(8 * one, rel=1e-9)
    assert one / 2 < tiles(5, 10) < 0.7 * one  # fewer are cut along their depth


def test_products_without_waste_reach_their_share_of_the_peak():
    m, n = 256.0 * 54, 128.0 * 2 * 54
    flops = 2 * m * n * DEEP
    reached = flops / seconds(PROCESSOR, m, n, DEEP) / PROCESSOR.peak("fp16")
    assert reached == pytest.approx(SELENE.calibration.gemm_efficiency, rel=0.005)
    assert seconds(PROCESSOR, 0, n, DEEP) == 0.0


def test_products_of_launches_of_their_own_share_waves_four_at_a_time():
    """Each of 54 tiles, half of the 108 multiprocessors: eight in one launch take four waves, in eight launches as many."""
    half, third, one = (768.0, 1152.0, DEEP), (768.0, 768.0, DEEP), tiles(9, 12)
    for count, launches, waves in ((8, 1, 4), (8, 8, 4), (3, 3, 2), (6, 1, 3), (6, 6, 3)):
        assert seconds(ONE_SHAPE, *half, count, launches=launches) == pytest.approx(waves * one)
    together = seconds(
        ONE_SHAPE, *third, 12
    )  # of 36 tiles: four at once take two waves, of which the second is a third full
    assert together == pytest.approx(4 * one)
    assert seconds(ONE_SHAPE, *third, 12, launches=12) == pytest.approx(6 * one)
    assert seconds(ONE_SHAPE, *third, 12, launches=3) == pytest.approx(together)


def test_thin_products_take_what_their_operands_need_from_memory():
    thin = seconds(PROCESSOR, 1.0, 12288.0, 12288.0)
    assert thin == pytest.approx(2 * 12288**2 / PROCESSOR.core_group.read_bandwidth, rel=0.01)


def test_sums_of_gradients_cost_traffic_on_gpus_alone():
    plain, summed = (seconds(PROCESSOR, 4096, 4096, 32, onto=onto) for onto in (0, 4))
    assert summed > plain * 1.5
    sunway = load_machine("sunway-oceanlight").processor(1)
    assert seconds(sunway, 4096, 4096, 32, onto=4) == seconds(sunway, 4096, 4096, 32)
    apart = SELENE.changed({"core_group.tiles.fused_sums": False}).processor(8)
    assert seconds(apart, 4096, 4096, 32, onto=4) > summed


def test_only_gradients_of_several_micro_batches_are_added_up():
    def sums(batch):
        options = {"mesh": {"tp": 8}, "global_batch": batch, "micro_batch": 1, "recompute": "none"}
        schedule, _ = lower_step(Setting.of(SELENE, "megatron-1.7b", options), 0)
        works = {each.name: each.work for each in schedule.operations if isinstance(each.work, Gemm)}
        return {name.rpartition(".")[2] for name, work in works.items() if work.onto}

    assert sums(1) == set()
    assert sums(2) == {"wgrad"}


def test_stages_scatter_what_ranks_of_tp_share_and_gather_it():
    def pipeline(**more):
        options = {"mesh": {"pp": 2, "tp": 8}, "global_batch": 4, "precision": "O2", **more}
        schedule, _ = lower_step(Setting.of(SELENE, "gpt-22b", options), 0)
        (work,) = (each.work for each in schedule.operations if isinstance(each.work, PipelineWork))
        return work

    whole, scattered = pipeline(sequence_parallel=False), pipeline(sequence_parallel=False, scatter_gather=True)
    assert scattered.activations.nbytes == whole.activations.nbytes / 8
    gathers = [each for block in scattered.blocks for each in block if each.name.startswith("stage.gather")]
    assert {each.name for each in gathers} == {"stage.gather", "stage.gather.grad"}
    for each in gathers:
        assert isinstance(each.work, Exchange)
        assert each.work.nbytes == whole.activations.nbytes
    cut = [pipeline(sequence_parallel=True, scatter_gather=each) for each in (True, False)]
    assert cut[0] == cut[1]  # each rank has its own part anyhow


def test_an_even_router_costs_nothing_and_levels_all():
    even = BALANCERS.find("even")
    assert list(even.operations(8, 100, 2)) == []
    assert even.carry(np.array([[[300, 50, 49]]]), 133).tokens.tolist() == [[133, 133, 133]]


def test_intervals_stand_around_the_step():
    options = {"mesh": {"tp": 8}, "global_batch": 4, "micro_batch": 4}
    bare = SELENE.model_copy(update={"interval": None})
    assert "step_seconds_low" not in simulate(bare, "gpt-22b", allow_overcommit=True, **options).summary()
    known = type(bare).model_validate({**bare.model_dump(), "interval": {"low": 0.9, "high": 1.2}})
    told = simulate(known, "gpt-22b", allow_overcommit=True, **options).summary()
    assert told["step_seconds_low"] == pytest.approx(0.9 * told["step_seconds"])
    assert told["step_seconds_high"] == pytest.approx(1.2 * told["step_seconds"])


def test_exchanges_over_tp_run_beside_the_products_around_them():
    options = {"mesh": {"tp": 8}, "global_batch": 4, "micro_batch": 4, "sequence_parallel": True, "recompute": "none"}
    setting = {each: Setting.of(SELENE, "gpt-22b", {**options, "tensor_overlap": each}) for each in (False, True)}
    turns, beside = (lower_step(each, 0)[0] for each in setting.values())
    assert [each.name for each in beside.operations] == [each.name for each in turns.operations]
    numbers = {each.name: number for number, each in enumerate(beside.operations)}

    def after(name):
        return {beside.operations[number].name for number in beside.operations[numbers[name]].after}

    assert "l0.ffn.gather" not in after("l0.ffn.up")
    assert "l0.ffn.gather" in after("l0.ffn.activation")
    assert beside.operations[numbers["l0.ffn.reduce"]].stream == "tensor"
    assert after("l0.ffn.reduce") == {"l0.ffn.activation"}  # as the product that it adds up
    assert "l0.ffn.reduce" in after("l0.ffn.residual")
    assert "l0.attention.gather.grad" in after("l0.attention.norm.grad")
    quick, slow = (
        simulate(SELENE, "gpt-22b", allow_overcommit=True, **{**options, "tensor_overlap": each}).summary()
        for each in (True, False)
    )
    parts = slow["breakdown"]
    assert quick["step_seconds"] < slow["step_seconds"]
    assert quick["step_seconds"] > slow["step_seconds"] - parts["tensor_parallel"] * 1.001
