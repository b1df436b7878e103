"""Blocks as arrays over many of them, against the engine's run of each; and blocks filled in, against blocks lowered."""

import numpy as np
import pytest
from athanor.sim.engine.block_batches import Forms
from athanor.sim.engine.noise import Noise
from athanor.sim.engine.step_engine import Engine
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.pipeline_blocks import PipelineBlocks
from athanor.workloads.lowering.step import TrainingStep
from athanor.workloads.model.model import load_model
from athanor.workloads.plan.run_file import resolved
from athanor.workloads.plan.setting import Setting

EIGHT = {
    "router": "zipf:1.0",
    "balancer": "none",
    "mesh": "pp=2,ep=4,dp=2",
    "global_batch": 32,
    "micro_batch": 1,
}
MODEL = load_model("mixtral-8x22b").model_copy(update={"layers": 4, "plan": {}})


def setting_of(**options):
    machine, model, chosen, _ = resolved("eos-h100", MODEL, {**EIGHT, **options}, None)
    return Setting.of(machine, model, chosen)


def pipeline_of(setting):
    schedule, _ = lower_step(setting, 0)
    (work,) = (each.work for each in schedule.operations if each.kind == "pipeline")
    return schedule, work


@pytest.mark.parametrize("depth", ["links", "fluid"])
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_a_batch_gives_each_block_what_the_engine_gives_it(depth, jitter):
    setting = setting_of(jitter=jitter, speed_spread=jitter)
    schedule, work = pipeline_of(setting)
    traffic = Traffic(setting.machine, setting.layout, depth)
    engine = Engine(setting.machine, schedule, traffic, Noise.of(setting, 0), {"all": (0,) * 3})
    of = Forms().of
    forms = [of(block) for block in work.blocks]
    together = [number for number, each in enumerate(forms) if each == forms[0]]
    assert len(together) > 2 and forms[0] is not None
    runs = engine.blocks(together, [work.blocks[number] for number in together])
    assert len({float(run.seconds.max()) for run in runs}) > 1  # they do differ
    for number, run in zip(together, runs, strict=True):
        alone = engine.block(number, work.blocks[number])
        np.testing.assert_allclose(*np.broadcast_arrays(run.seconds, alone.seconds), rtol=1e-12)
        np.testing.assert_allclose(*np.broadcast_arrays(run.made, alone.made), rtol=1e-12)
        assert run.parts.keys() == alone.parts.keys()
        for key, seconds in run.parts.items():
            np.testing.assert_allclose(*np.broadcast_arrays(seconds, alone.parts[key]), rtol=1e-9, atol=1e-15)
        for kind, nbytes in alone.loads.loads.items():
            np.testing.assert_allclose(run.loads.loads[kind], nbytes, rtol=1e-12)
        assert (run.events, run.rows) == (alone.events, alone.rows)


def test_blocks_whose_operations_run_side_by_side_are_no_batch():
    _, work = pipeline_of(setting_of(overlap="gradients", mesh="pp=2,ep=2,dp=4"))
    assert any(Forms().of(block) is None for block in work.blocks)


@pytest.mark.parametrize("options", [{}, {"recompute": "full"}, {"pipeline": "zb-h1"}, {"all_to_all": "two-level"}])
def test_blocks_are_filled_in_as_they_are_lowered(options):
    this = TrainingStep(setting_of(**options), 0)
    flows, blocks = [this.flows(micro_batch) for micro_batch in range(2)], PipelineBlocks(this)
    split = options.get("pipeline") == "zb-h1"
    for virtual in range(2):
        for which, numbers in zip("FBW", blocks.uses(virtual, split, 2, flows), strict=False):
            for at, number in enumerate(numbers):
                ends = (virtual == 0, virtual == 1)
                lowered = blocks.make(blocks.parts[virtual], which, split, ends, flows[at], at == 1)
                assert _plain([blocks.made[number]]) == _plain([lowered])
    assert len(blocks.made) == 4 * (3 if split else 2)


def _plain(blocks):
    return [
        [
            (
                each.task,
                each.label,
                each.after,
                type(each.work),
                {k: np.asarray(v).tolist() for k, v in vars(each.work).items()},
            )
            for each in block
        ]
        for block in blocks
    ]


def test_micro_batches_that_are_drawn_together_are_those_drawn_alone():
    machine, model, chosen, _ = resolved(
        "eos-h100", "deepseek-v3", {"router": "zipf:1.0", "balancer": "none", "global_batch": 4096}, None
    )
    loads = TrainingStep(Setting.of(machine, model, chosen), 0).bare.experts[False].loads
    for micro_batch in (0, 3, 9):
        alone = loads.of_experts(5, 0, micro_batch)
        np.testing.assert_array_equal(
            loads.wanted(5, 0, micro_batch), alone.reshape(*alone.shape[:2], loads.ranks, -1).sum(-1)
        )


def test_bytes_of_a_stage_are_those_of_its_own_groups():
    setting = setting_of()
    _, work = pipeline_of(setting)
    traffic = Traffic(setting.machine, setting.layout, "links")
    exchange = next(
        each.work for block in work.blocks for each in block if getattr(each.work, "received", None) is not None
    )
    first, second = (np.array(times, dtype=np.float64).reshape(work.along) for times in ([3.0, 0.0], [0.0, 3.0]))
    whole = traffic.weighted(exchange, first + second).loads
    parts = [traffic.weighted(exchange, times).loads for times in (first, second)]
    for kind, nbytes in whole.items():
        np.testing.assert_allclose(sum(part.get(kind, 0.0) for part in parts), nbytes, rtol=1e-12)
    assert any((part[kind] != whole[kind]).any() for part in parts for kind in part)
