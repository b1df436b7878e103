"""The referee is right by itself; and how far the engine may be from it, by kind of plan."""

import numpy as np
import pytest
from athanor.sim.engine.noise import Noise
from athanor.workloads.lowering import lower_step
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.pipelines import PIPELINES
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, Loop, PipelineWork
from oracles.naive_engine import NaiveEngine
from oracles.referee.network import fair
from oracles.referee.step import Referee
from support.machines import tree
from support.programs import drifting_program
from support.refereed import KINDS, SEQUENCE, Case, block, case, cluster, dense

HELD = {
    "pipelines, slow hand-overs": (0.01, 0.05),
    "pipelines, stages that send": (0.01, 0.05),
    "pipelines, uneven experts": (0.01, 0.05),
    "uneven experts": (0.002, 0.02),
    "groups that drift, a shared trunk": (0.06, 0.2),
    "ZeRO 3 with prefetch": (0.01, 0.05),
}
"""Mean and worst error of a step at fluid depth that the plans below may have."""


def test_rates_of_a_network_worked_by_hand():
    """Two flows on a link of 6, of which one also passes one of 2, and a third beside it on 2: 4, 2; and 1 each on the tight one."""
    capacity = np.array([6.0, 2.0, np.inf])
    assert fair(np.array([[0, 2], [0, 1]]), capacity).tolist() == [4.0, 2.0]
    assert fair(np.array([[0, 2], [0, 1], [1, 2]]), capacity).tolist() == [5.0, 1.0, 1.0]


@pytest.mark.parametrize("dp", [1, 2])
def test_a_pipeline_worked_by_hand(dp):
    """GPipe on two stages, hand-overs of 4 s after passes of 1 and 2 s: both ways five of them follow each other on a card."""
    mesh, machine = Mesh.of({"pp": 2, "dp": dp}), tree(nodes=64, supernode=64, taper=1.0)
    layout = place(mesh, machine, "block:pp,dp", 1)
    passes = tuple((Operation("l0.work", "forward", "compute", "compute", Loop(each), ()),) for each in (1.0, 2.0))
    send = Exchange("shift", "next", ("pp",), 40.0, "fp32")
    work = PipelineWork("gpipe", 2, 5, 1, passes, (((0,), (1,)),) * 2, (0, 1), send, (2, 1))
    step = Schedule(layout, (Operation("micro-batches", "forward", "compute", "compute", work, ()),))
    assert Referee(machine, step).run() == pytest.approx(1 + 5 * 4 + 1 + 2 + 5 * 4 + 2)


@pytest.mark.parametrize("seed", range(12))
def test_the_referee_is_the_naive_engine(seed):
    """Begin and end of all operations on all ranks, where groups drift apart and share links."""
    machine, schedule = drifting_program(seed)
    referee = Referee(machine, schedule)
    referee.run()
    for (number, rank), (begin, end) in NaiveEngine(machine, schedule.layout).run(schedule).items():
        found = referee.times[schedule.operations[number].name, rank]
        assert found == (pytest.approx(begin, abs=1e-9), pytest.approx(end, rel=1e-9))


def test_every_kind_of_plan_has_its_bounds():
    assert HELD.keys() == KINDS.keys()
    drawn = {case("pipelines, slow hand-overs", seed).schedule.operations[0].work.name for seed in range(40)}
    assert drawn == {name for name, each in PIPELINES.items() if not each.asynchronous and not each.folded}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_what_ranks_do_one_by_one(kind):
    """Eight random plans of up to 16 ranks; ``benchmarks/referee.py`` takes more and larger ones."""
    mean, worst = HELD[kind]
    plans = [case(kind, seed) for seed in range(8)]
    off = np.array([abs(each.engine("fluid") / each.referee() - 1) for each in plans])
    assert off.mean() <= mean and off.max() <= worst, plans[int(off.argmax())].text


@pytest.mark.parametrize("name", ["zb-v", "dualpipe-v"])
def test_stages_that_hand_on_both_ways_take_what_ranks_do_one_by_one(name):
    """Hand-overs that are slow, and queue for cards in both directions."""
    off = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        mesh = {"pp": 2 + seed, "dp": 2}
        options = {**block(mesh), "pipeline": name, "chunks": 2, "micro_batch": 1, "tokens_per_rank": 6 * SEQUENCE}
        machine = cluster(random)
        setting = Setting.of(machine, dense(2 * mesh["pp"]), options)
        found = Case(machine, lower_step(setting, 0)[0], Noise(setting.layout, 0.0, 0.0, 0, 0), name)
        off.append(abs(found.engine("fluid") / found.referee() - 1))
    assert max(off) < 0.01, off
