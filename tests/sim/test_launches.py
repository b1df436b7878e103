"""A host starts kernels while earlier ones run: a pass through a layer takes no less than what starting them takes."""

from dataclasses import replace

import athanor
import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.engine.block_batches import Forms
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.lowering import lower_step
from athanor.workloads.model.model import Model, load_model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import LAUNCH, Role
from athanor.workloads.schedule.work import Gemm, Launches, PipelineWork, kernels
from pytest import approx

DENSE = Model(name="dense", layers=4, heads=8, hidden=512, ffn_hidden=2048, vocabulary=1000, seq_len=512)
EXPERTS = Model(**{**load_model("moda-tiny").model_dump(), "plan": {}, "experts": 16, "top_k": 2, "seq_len": 512})
ONE = {"mesh": {"dp": 1}, "global_batch": 1, "micro_batch": 1}
UNEVEN = {"mesh": {"pp": 2, "ep": 4}, "global_batch": 64, "micro_batch": 1, "router": "zipf:1.0", "balancer": "none"}
FINE = Model(  # 30 B parameters, 3 B of them active (Qwen3)
    name="fine",
    layers=48,
    heads=32,
    kv_heads=4,
    head_size=128,
    hidden=2048,
    ffn_hidden=6144,
    experts=128,
    expert_hidden=768,
    top_k=8,
    vocabulary=151936,
    gated=True,
    norm="rms",
    tied=False,
    seq_len=4096,
)


def paced(launch):
    return load_machine("eos-h100").changed({"core_group.launch": launch})


def seconds(launch, model=DENSE, **plan):
    return athanor.simulate(paced(launch), model, **{**ONE, **plan}).summary()["step_seconds"]


def of_host(schedule):
    return [each for each in schedule.operations if isinstance(each.work, Launches)]


class TestLaws:
    def test_short_kernels_take_as_long_as_their_host_and_long_ones_as_ever(self):
        """Nothing is added up: beyond where all layers wait for the host, a step grows by what their launches grow by."""
        schedule = lower_step(Setting.of(paced(0.0), DENSE, ONE))[0]
        started = sum(each.work.kernels for each in of_host(schedule))
        assert len(of_host(schedule)) == 2 * DENSE.layers
        assert seconds(1e-9) == seconds(0.0)
        assert seconds(2e-3) - seconds(1e-3) == approx(1e-3 * started)
        assert seconds(0.0) < seconds(1e-3) < seconds(0.0) + 1e-3 * started

    def test_a_layer_s_kernels_are_those_of_its_operations(self):
        schedule = lower_step(Setting.of(paced(0.0), DENSE, ONE))[0]
        own = [each for each in schedule.operations if each.task.layer == 1 and each.stream != LAUNCH]
        for each in of_host(schedule):
            if each.task.layer == 1:
                mine = sum(kernels(other.work) for other in own if other.phase == each.phase)
                assert each.work.kernels > mine >= len([other for other in own if other.phase == each.phase])

    def test_what_waits_for_the_host_is_said_so(self):
        run = athanor.simulate(paced(1e-3), DENSE, **ONE).summary()
        assert run["breakdown"]["launch"] == approx(run["step_seconds"] - seconds(0.0))
        assert athanor.simulate(paced(0.0), DENSE, **ONE).summary()["breakdown"]["launch"] == 0.0

    @pytest.mark.parametrize("plan", [{}, {"mesh": {"pp": 2}, "global_batch": 8}, {"recompute": "full"}])
    def test_a_graph_starts_them_all_at_once(self, plan):
        assert seconds(1e-3, cuda_graphs=True, **plan) == seconds(0.0, **plan) < seconds(1e-3, **plan)

    def test_eight_bits_and_experts_take_more_of_a_host(self):
        def started(model, **plan):
            return sum(each.work.kernels for each in of_host(lower_step(Setting.of(paced(0.0), model, plan))[0]))

        assert started(DENSE, **ONE, precision="fp8") > 1.5 * started(DENSE, **ONE, precision="bf16")
        plan = {"global_batch": 8, "micro_batch": 1, "balancer": "even"}
        few, many = (started(EXPERTS, mesh={"ep": parts}, **plan) for parts in (8, 2))
        products = 6 * EXPERTS.layers  # two forward, four backward, for each expert
        per_rank = {8: 2, 2: 8}
        assert many / 4 - few == approx(products * (per_rank[2] - per_rank[8]), rel=0.3)


class TestEngines:
    def test_batches_of_uneven_blocks_are_what_the_engine_makes_of_each(self):
        setting = Setting.of(paced(2e-4), EXPERTS, UNEVEN)
        schedule, _ = lower_step(setting)
        work = next(each.work for each in schedule.operations if isinstance(each.work, PipelineWork))
        form = Forms().of
        alike = [number for number, block in enumerate(work.blocks) if form(block) == form(work.blocks[0])]
        assert form(work.blocks[0]) is not None and len(alike) > 4
        from athanor.sim.engine.noise import Noise
        from athanor.sim.engine.step_engine import Engine

        traffic = Traffic(setting.machine, setting.layout, "links")
        engine = Engine(setting.machine, schedule, traffic, Noise.of(setting, 0), {})
        together = engine.blocks(alike[:4], [work.blocks[number] for number in alike[:4]])
        for number, found in zip(alike[:4], together, strict=True):
            alone = engine.block(number, work.blocks[number])
            assert np.allclose(found.seconds, alone.seconds, rtol=1e-12) and np.allclose(found.made, alone.made)
            assert found.parts["forward", "launch"].max() > 0
            for key, part in alone.parts.items():
                assert np.allclose(np.broadcast_to(found.parts[key], part.shape), part, atol=1e-15), key

    def test_rank_by_rank_says_the_same(self):
        plan = {**ONE, "mesh": {"dp": 4}, "global_batch": 4}
        by_message = athanor.simulate(paced(1e-3), DENSE, depth="message", **plan).summary()["step_seconds"]
        assert by_message == approx(seconds(1e-3, **plan), rel=1e-3)


class TestExperts:
    def test_tokens_that_come_are_brought_into_order_on_gpus_alone(self):
        plan = {"mesh": {"ep": 4}, "global_batch": 4, "micro_batch": 1, "balancer": "even"}
        for machine, expected in (("eos-h100", 4), ("sunway-oceanlight", 0)):
            schedule = lower_step(Setting.of(machine, EXPERTS, {**plan, "precision": "O0"}))[0]
            sorts = [each for each in schedule.operations if each.task.role is Role.EXPERT_SORT]
            assert len(sorts) == expected * EXPERTS.layers
            for each in sorts:
                assert each.work.size == 512 * EXPERTS.top_k * EXPERTS.hidden
        assert not of_host(schedule)
        one = replace(Setting.of("eos-h100", EXPERTS, {**plan, "mesh": {"ep": 16}, "global_batch": 16}))
        assert not [each for each in lower_step(one)[0].operations if each.task.role is Role.EXPERT_SORT]

    def test_each_expert_is_a_product_of_its_own_to_the_host(self):
        plan = {"mesh": {"ep": 4}, "global_batch": 4, "micro_batch": 1, "balancer": "even"}
        schedule = lower_step(Setting.of("eos-h100", EXPERTS, plan))[0]
        products = [
            each.work for each in schedule.operations if each.task.part == "moe" and isinstance(each.work, Gemm)
        ]
        assert {(each.count, kernels(each)) for each in products} == {(1.0, 1.0), (4.0, 4.0)}

    def test_fine_grained_experts_wait_for_their_host(self):
        """Published: 9,299 tokens/s a GPU of eight B200, with micro-batches of one sequence."""
        plan = {"mesh": {"ep": 8}, "global_batch": 64, "micro_batch": 1, "precision": "fp8", "zero": "1"}
        plan |= {"attention": "fused", "overlap": "all", "balancer": "even"}
        run = athanor.simulate("dgx-b200", FINE, allow_overcommit=True, **plan).summary()
        assert run["breakdown"]["launch"] > 0.3 * run["step_seconds"]
        assert run["tokens_per_second"] / 8 == approx(9299, rel=0.2)
