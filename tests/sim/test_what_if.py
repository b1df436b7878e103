"""Grids of what-if: every point is what simulating that machine by itself gives."""

from itertools import pairwise

import athanor
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.what_if import ARITHMETIC, FACTORS, JITTER, LINKS, NOISE, what_if
from athanor.sim.workers import Here
from athanor.workloads.model.model import load_model

PLAN = {"mesh": {"dp": 4, "tp": 2}, "tokens_per_rank": 1024, "recompute": "none"}


def steps(grid):
    """Seconds by factors, in the order of the axes."""
    places = [()]
    for axis in grid.axes:
        places = [(*place, factor) for place in places for factor in axis.factors]
    return dict(zip(places, [each.step_seconds for each in grid.points], strict=True))


@pytest.fixture(scope="module")
def machine():
    return load_machine("cluster-64")


@pytest.fixture(scope="module")
def grid(machine):
    return what_if(machine, load_model("gpt-tiny"), PLAN, Here())


def test_it_is_as_it_is_where_all_factors_are_one(machine, grid):
    assert [(axis.what, axis.factors) for axis in grid.axes] == [(LINKS, FACTORS), (ARITHMETIC, FACTORS)]
    alone = athanor.simulate(machine, "gpt-tiny", **PLAN)
    assert steps(grid)[1.0, 1.0] == alone.totals.step_seconds
    peaks = {f"core_group.peak.{name}": 4 * rate for name, rate in machine.core_group.peak.items()}
    assert steps(grid)[1.0, 4.0] == athanor.simulate(machine.changed(peaks), "gpt-tiny", **PLAN).totals.step_seconds


def test_faster_is_never_slower(grid):
    found = steps(grid)
    for slow, fast in pairwise(FACTORS):
        assert all(found[fast, other] <= found[slow, other] * (1 + 1e-9) for other in FACTORS)
        assert all(found[other, fast] <= found[other, slow] * (1 + 1e-9) for other in FACTORS)
    assert found[4.0, 4.0] < found[0.5, 0.5] / 1.2


def test_jitter_is_an_axis_where_there_is_any(machine, monkeypatch):
    monkeypatch.setattr("athanor.sim.what_if.FACTORS", (1.0,))
    plan = {**PLAN, "mesh": {"dp": 2}, "jitter": 0.3}
    grid = what_if(machine, load_model("gpt-tiny"), {**plan, "steps": 3, "placement": None}, Here())
    assert grid.axes[-1].what == JITTER
    alone = athanor.simulate(machine, "gpt-tiny", **{**plan, "jitter": 0.6})
    assert len(grid.points) == len(NOISE)
    assert grid.points[NOISE.index(2.0)].step_seconds == alone.totals.step_seconds
