"""Groups that drift apart: each loads the network at its own time, and where too many do, the result says so."""

import athanor
import athanor.sim.engine.drift as drift
import numpy as np
import pytest
from athanor.sim.engine import stages
from athanor.sim.engine.block_batches import TOGETHER
from athanor.sim.network.coupling import Coupling, Kind
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.model.model import load_model
from athanor.workloads.schedule.work import Exchange, Loop
from oracles.naive_engine import NaiveEngine
from support.machines import tree
from support.programs import beside, drifting_program, schedule_of, simulate


@pytest.mark.parametrize(("programs", "seeds"), [(drifting_program, range(40)), (beside, range(40))])
def test_drifting_programs_are_exact(programs, seeds):
    """Every begin and end on every rank, whatever groups share links and whenever they begin, on one stream or on two."""
    apart = 0
    for seed in seeds:
        machine, schedule = programs(seed)
        expected = NaiveEngine(machine, schedule.layout).run(schedule)
        found, result = simulate(machine, schedule)
        for key, times in expected.items():
            assert found[key] == pytest.approx(times, rel=1e-8, abs=1e-8), (seed, key)
        assert not result.notes
        apart += len({begin for (number, _), (begin, _) in expected.items() if number == 1}) > 1
    assert apart > len(seeds) / 4  # else this tests nothing


@pytest.mark.parametrize(("mean", "worst"), [(0.02, 0.25)])
def test_at_links_depth_drifting_programs_stay_within_the_stated_bound(mean, worst):
    """Flows are not known at it; docs/architecture.md states what was measured."""
    ratios = []
    for seed in range(80):
        machine, schedule = drifting_program(seed)
        expected = max(end for _, end in NaiveEngine(machine, schedule.layout).run(schedule).values())
        ratios.append(simulate(machine, schedule, "links")[1].seconds / expected)
    assert abs(np.mean(ratios) - 1) < mean
    assert np.abs(np.array(ratios) - 1).max() < worst


def groups_over_a_trunk(late, groups=8, times=6):
    """Pairs of nodes in two supernodes that share the trunk between them; each computes as long as ``late`` says, and exchanges."""
    machine = tree(nodes=64, supernode=groups, taper=0.25)
    mesh = Mesh.of({"ep": 2, "dp": groups})
    layout = place(mesh, machine, {"ep": "supernode", "dp": "node"})
    works = [Loop(np.array([late])), Exchange("all-reduce", "ring", ("ep",), 40.0, "fp32")] * times
    return machine, schedule_of(layout, works)


def test_groups_apart_have_the_trunk_to_themselves():
    """20 B/s of trunk, 40 bytes each way for each of 8 groups: together they take 16 s, apart 4 s, as long as their cards do."""
    machine, schedule = groups_over_a_trunk(np.arange(8) * 100.0, times=1)
    found, _ = simulate(machine, schedule)
    for group in range(8):
        begin, end = found[1, group]
        assert (begin, end - begin) == (pytest.approx(100.0 * group), pytest.approx(4.0))
    machine, schedule = groups_over_a_trunk(np.zeros(8), times=1)
    found, _ = simulate(machine, schedule)
    assert found[1, 0][1] == pytest.approx(16.0)


def test_groups_that_cannot_be_told_apart_are_said(monkeypatch):
    """More batches come nearer to the truth; with one the network waits for the last, and the run says how long."""
    late = np.random.default_rng(0).uniform(20.0, 60.0, 8)
    machine, schedule = groups_over_a_trunk(late)
    exact = simulate(machine, schedule)[1]
    assert not exact.notes
    found = []
    for begins in (0, 12, 24):
        monkeypatch.setattr(drift, "MOST_BEGINS", begins)
        result = simulate(machine, schedule)[1]
        assert "8 groups along ep share links and do not begin together" in " ".join(result.notes)
        found.append(result.seconds)
    assert found[0] >= found[1] >= exact.seconds
    assert found[2] >= exact.seconds


def test_links_that_can_never_be_full_couple_nothing():
    """With as much bandwidth up as in, only cards can be full, and those belong to one group each."""
    mesh = Mesh.of({"ep": 2, "dp": 4})
    for taper, coupled in ((0.5, True), (1.0, False)):
        machine = tree(nodes=64, supernode=4, taper=taper)
        layout = place(mesh, machine, {"ep": "supernode", "dp": "node"})
        kind = Kind("communication", ("ep",))
        found = Coupling(Traffic(machine, layout, "fluid"), [kind]).coupled()
        assert (kind in found) == coupled
        groups = layout.groups(("ep",))
        assert Traffic(machine, layout, "fluid").phases.crowded(groups) == coupled


def test_bytes_on_links_do_not_depend_on_how_a_step_is_played(monkeypatch):
    """Cell by cell, or as one."""
    for seed in range(12):
        machine, schedule = drifting_program(seed)
        apart = simulate(machine, schedule)[1]
        monkeypatch.setattr(drift, "MOST_BEGINS", 0)
        whole = simulate(machine, schedule)[1]
        monkeypatch.undo()
        for name, nbytes in whole.loads.loads.items():
            assert apart.loads.loads[name] == pytest.approx(nbytes)


def test_a_pipeline_of_many_blocks_takes_what_is_nearly_together_as_together(monkeypatch):
    """And says so, with its error, which the step keeps to."""
    model = load_model("mixtral-8x22b").changed({"layers": 8})
    plan = {
        "mesh": "ep=8,tp=8,pp=8",
        "router": "zipf:1.0",
        "balancer": "none",
        "global_batch": 32,
        "pipeline": "1f1b",
        "allow_overcommit": True,
    }
    exact = athanor.simulate("selene", model, **plan)
    monkeypatch.setattr(stages, "MANY", 0)
    near = athanor.simulate("selene", model, **plan)
    seconds = [run.summary()["step_seconds"] for run in (exact, near)]
    assert seconds[1] == pytest.approx(seconds[0], rel=drift.NEAR)
    told = [TOGETHER in run.summary()["warnings"] for run in (exact, near)]
    assert told == [False, True]
