"""Stages of a pipeline whose own exchanges meet on a trunk, and messages that meet what stages send."""

import numpy as np
import pytest
from athanor.sim.engine import stage_crowds
from athanor.sim.engine.noise import Noise
from athanor.sim.engine.stage_cards import Slowing
from athanor.sim.engine.stage_crowds import Burst, StageCrowds, _expected, met
from athanor.sim.engine.step_engine import Engine
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, Loop, PipelineWork
from hypothesis import given
from hypothesis import strategies as st
from oracles.referee.step import Referee
from support.machines import tree


def step_of(placement, micro_batches, stages=3, computes=2.0, routing="static"):
    """GPipe whose stages compute, and all-reduce over two ranks: in two supernodes under ``block:pp,tp``, in one under the other."""
    machine = tree(nodes=64, supernode=stages, taper=0.5, routing=routing)
    mesh = Mesh.of({"pp": stages, "tp": 2})
    ring = Exchange("all-reduce", "ring", ("tp",), 30.0, "fp32")

    def block(kind, seconds):
        loop = Operation(f"l0.work.{kind}", "forward", "compute", "compute", Loop(seconds), ())
        return (loop, Operation(f"l0.sum.{kind}", "forward", "tensor_parallel", "communication", ring, (0,)))

    send = Exchange("shift", "next", ("pp",), 1.0, "fp32")
    passes, along = (block("forward", computes), block("backward", 2 * computes)), (stages, 1)
    work = PipelineWork(
        "gpipe", stages, micro_batches, 1, passes, (((0,), (1,)),) * stages, tuple(range(stages)), send, along
    )
    layout = place(mesh, machine, placement, 1)
    return machine, Schedule(layout, (Operation("micro-batches", "forward", "compute", "compute", work, ()),))


def played(machine, schedule, depth="fluid"):
    layout = schedule.layout
    return Engine(machine, schedule, Traffic(machine, layout, depth), Noise(layout, 0.0, 0.0, 0, 0), {}).run()


def seconds(machine, schedule, depth="fluid"):
    return played(machine, schedule, depth).seconds


@pytest.mark.parametrize("depth", ["fluid", "links"])
def test_stages_that_never_run_at_once_do_not_slow_each_other(depth):
    """With one micro-batch every stage has the trunk to itself."""
    machine, schedule = step_of("block:pp,tp", 1)
    assert seconds(machine, schedule, depth) == pytest.approx(Referee(machine, schedule).run(), rel=1e-9)


@pytest.mark.parametrize("micro_batches", [2, 4, 8])
@pytest.mark.parametrize("computes", [0.5, 2.0, 8.0])
def test_stages_that_run_at_once_share_the_trunk(micro_batches, computes):
    """Longer than on a wider trunk, and near what every message by itself gives: least so where stages send in step (8 s, 8)."""
    machine, schedule = step_of("block:pp,tp", micro_batches, computes=computes)
    found, expected = seconds(machine, schedule), Referee(machine, schedule).run()
    wide = machine.model_copy(update={"fabric": machine.fabric.model_copy(update={"taper": 1.0})})
    assert found > seconds(wide, schedule)
    assert found == pytest.approx(expected, rel=0.1)


def test_stages_that_are_too_many_to_be_told_apart_are_noted(monkeypatch):
    """All run a block at once then: no shorter than stage by stage, and a note says so. Where none meet nothing is to be said."""
    for placement, notes in (("block:pp,tp", 1), ("block:tp,pp", 0)):
        machine, schedule = step_of(placement, 4)
        exact = played(machine, schedule)
        monkeypatch.setattr(stage_crowds, "MOST_OPERATIONS", 1)
        coarse = played(machine, schedule)
        monkeypatch.undo()
        assert (len(exact.notes), len(coarse.notes)) == (0, notes)
        assert all("trunk.out" in note and "31 %" in note for note in coarse.notes)
        assert coarse.seconds >= exact.seconds * (1 - 1e-9)


def test_which_stages_meet():
    for placement, meets in (("block:pp,tp", {"trunk.out", "trunk.in"}), ("block:tp,pp", set())):
        machine, schedule = step_of(placement, 2, stages=4)
        traffic = Traffic(machine, schedule.layout, "fluid")
        assert set(met(schedule.operations[0].work, traffic, 0)) == meets


def test_two_that_always_send_have_half_of_a_link_each():
    """And those that send half of the time, and take half of the link then, do not slow each other at all."""
    machine, schedule = step_of("block:pp,tp", 2)
    links = {"nic.out": np.array([False, True, True])}
    crowds = StageCrowds(schedule.operations[0].work, Traffic(machine, schedule.layout, "fluid"), 0, None, links)
    always, half = Burst(1.0, np.array([1.0, 0.0])), Burst(0.5, np.array([0.5, 0.0]))
    assert crowds._settled([always, always, None]) == [2.0, 2.0, 1.0]
    assert crowds._settled([always, always, always]) == [3.0, 3.0, 3.0]
    assert crowds._settled([half, half, Burst(1.0, np.array([0.0, 1.0]))]) == [1.0, 1.0, 1.0]
    assert _expected(1.0, [(1.0, 0.5)]) == 1.5


@given(st.floats(0.0, 1.0), st.floats(0.01, 1.0))
def test_a_link_that_messages_and_blocks_share_carries_no_more_than_it_can(busy, part):
    """Each second of both carries less than a link's second; what takes half of a link or less is not slowed."""
    slowing = Slowing.of(busy, part)
    block, message = 1 / (1 + slowing.block), 1 / (1 + slowing.message)
    assert busy * block + part * message <= 1 + 1e-9
    assert part > 0.5 or slowing.message == pytest.approx(0.0, abs=1e-12)
    assert Slowing.of(busy, 1.0) == (pytest.approx(busy), pytest.approx(busy), False)
