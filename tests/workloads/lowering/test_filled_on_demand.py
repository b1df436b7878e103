"""Steps whose amounts are filled in when they are asked for: they are those of a step written in full, however few are kept."""

from __future__ import annotations

import pickle
from weakref import WeakSet

import athanor
import numpy as np
import pytest
from athanor.workloads.lowering import _written, block_templates, lower_step
from athanor.workloads.lowering.layer.moe import Flow
from athanor.workloads.lowering.step import TrainingStep
from athanor.workloads.plan.setting import Setting
from athanor.workloads.results.run import Run
from athanor.workloads.results.trace import TraceRow
from athanor.workloads.schedule.block_flops import flops_of
from athanor.workloads.schedule.operation import FilledBlock
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import PipelineWork

UNEVEN = {"router": "zipf:1.0", "balancer": "none", "mesh": {"ep": 4, "dp": 2}, "drift": 0.5}


def setting(**options: object) -> Setting:
    return Setting.of("cluster-64", "moda-tiny", {**UNEVEN, **options})


@pytest.mark.parametrize("options", [{}, {"global_batch": 64, "micro_batch": 4}, {"recompute": "full"}])
@pytest.mark.parametrize("step", [0, 3])
def test_it_is_the_step_written_in_full(options: dict[str, object], step: int) -> None:
    here = setting(**options)
    lower_step(here, 1)  # whose template it shares
    schedule, loads = lower_step(here, step)
    this = TrainingStep(here, step)
    whole = _written(this, [this.flows(number) for number in range(here.batch.micro_batches)])
    assert schedule.to_json() == whole.to_json()
    assert all(np.array_equal(one.received, other.received) for one, other in zip(loads, this.seen, strict=True))
    assert pickle.loads(pickle.dumps(schedule)).to_json() == whole.to_json()
    assert Schedule.from_json(schedule.to_json()) == schedule
    assert [each.name for each in schedule.outline] == [each.name for each in whole.operations]
    assert schedule.operations[-1].name == whole.operations[-1].name
    assert schedule.operations[2:5] == tuple(schedule.operations)[2:5]


def test_exchanges_are_known_to_send_the_same_as_where_they_are_written_in_full() -> None:
    here = setting()
    this = TrainingStep(here, 0)
    whole, schedule = _written(this, [this.flows(0)]), lower_step(here)[0]

    def alike(each: Schedule) -> list[int]:
        keys = [each.sent(number) for number in range(len(each.operations))]
        return [keys.index(key) for key in keys]

    assert alike(schedule) == alike(whole)


def test_flows_that_were_let_go_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**UNEVEN, "jitter": 0.05, "seed": 3, "steps": 2}
    kept = athanor.simulate("cluster-64", "moda-tiny", **options)
    monkeypatch.setattr(block_templates, "MOST_KEPT", 1)
    alive, most, before = WeakSet[Flow](), 0, Flow.__post_init__

    def made(flow: Flow) -> None:
        nonlocal most
        before(flow)
        if np.size(flow.tokens) > 1:
            alive.add(flow)
        most = max(most, len(alive))

    monkeypatch.setattr(Flow, "__post_init__", made)
    again = athanor.simulate("cluster-64", "moda-tiny", **options)
    assert told(again) == told(kept)
    assert 0 < most <= 2, "a layer's flow, and the next one while it is made"


def told(run: Run) -> tuple[dict[str, object], list[TraceRow]]:
    """What a run says, but for what it took."""
    return run.totals.model_dump(exclude={"wall_seconds", "peak_rss_bytes"}), list(run.trace)


@pytest.mark.parametrize("options", [{}, {"recompute": "full"}, {"pipeline": "zb-h1"}])
def test_blocks_know_the_flops_of_what_they_are_filled_with(options: dict[str, object]) -> None:
    here = setting(**{"mesh": {"ep": 4, "dp": 2, "pp": 2}, "global_batch": 64, "micro_batch": 4, **options})
    (work,) = [each.work for each in lower_step(here)[0].operations if isinstance(each.work, PipelineWork)]
    filled = [block for block in work.blocks if isinstance(block, FilledBlock)]
    assert len(filled) > 2
    for block in filled:
        assert block.flops == pytest.approx(flops_of(block), rel=1e-12)
        arrays = [each for operation in block for each in vars(operation.work).values() if isinstance(each, np.ndarray)]
        assert not any(each.flags.writeable for each in arrays)
