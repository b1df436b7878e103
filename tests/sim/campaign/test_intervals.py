"""Intervals between checkpoints: Daly's published anchors, and closed forms against simulation."""

import numpy as np
import pytest
from athanor.hardware.site.faults import Component
from athanor.sim.campaign.faults.fault_history import FaultProcess
from athanor.sim.campaign.faults.renewals import play
from athanor.sim.campaign.intervals import (
    daly,
    daly_first_order,
    expected_seconds,
    level_intervals,
    level_overhead,
    young,
)
from athanor.sim.campaign.job import CheckpointLevel, Job
from athanor.sim.campaign.optimum import best_interval
from athanor.sim.campaign.storage.checkpoints import LEVELS, _levels
from support.campaigns import DAY, HOUR, ONE, plain_faults, plain_process

ANCHORS = [(24 * HOUR, 117, 115), (6 * HOUR, 57, 55), (15 * 60, 9.1, 7.2)]
"""MTBF in seconds; Daly's optimum and first order in minutes, for checkpoints of 5 min (Daly 2006, figures 3 to 5)."""


@pytest.mark.parametrize(("mtbf", "optimum", "first"), ANCHORS)
def test_dalys_anchors(mtbf, optimum, first):
    assert daly(300.0, mtbf) / 60 == pytest.approx(optimum, rel=0.01)
    assert daly_first_order(300.0, mtbf) / 60 == pytest.approx(first, rel=0.01)
    assert young(300.0, mtbf) == pytest.approx(daly_first_order(300.0, mtbf) + 300.0)


def test_where_a_checkpoint_takes_longer_than_faults_leave_the_interval_is_the_mtbf():
    assert daly(1000.0, 500.0) == 500.0


@pytest.mark.parametrize("mtbf", [15 * 60, HOUR, 6 * HOUR, DAY, 7 * DAY])
def test_campaigns_take_what_daly_expects(mtbf):
    save, restart, work = 300.0, 600.0, 500 * HOUR
    interval = daly(save, mtbf)
    job, process = Job(work, interval, save, restart, 0.0), plain_process(mtbf)
    played = np.array([play(job, process.history(seed)).seconds for seed in range(30)])
    expected = expected_seconds(work, interval, save, restart, mtbf)
    assert played.mean() == pytest.approx(expected, rel=0.02)
    assert abs(played.mean() - expected) < 4 * played.std() / np.sqrt(len(played))


@pytest.mark.parametrize("mtbf", [HOUR, DAY])
def test_the_best_interval_is_dalys(mtbf):
    save, restart, work = 300.0, 600.0, 500 * HOUR
    job = Job(work, HOUR, save, restart, 0.0)
    found = best_interval(job, plain_process(mtbf), 0, 2.0 * daly(save, mtbf), 1.0)
    least = expected_seconds(work, daly(save, mtbf), save, restart, mtbf)
    assert found == pytest.approx(daly(save, mtbf), rel=0.25)
    assert expected_seconds(work, found, save, restart, mtbf) < 1.005 * least


def test_levels_cost_what_their_rates_say():
    saves, mtbfs = [1.0, 10.0, 100.0], [HOUR, DAY, 30 * DAY]
    intervals = level_intervals(saves, mtbfs)
    cost = sum(save / each + each / (2 * mtbf) for save, each, mtbf in zip(saves, intervals, mtbfs, strict=True))
    assert level_overhead(saves, mtbfs) == pytest.approx(cost)


def test_levels_of_a_simulated_campaign_cost_what_their_rates_say():
    """Where restarts are quick and levels far apart, the overhead is that of the first order."""
    mtbfs, saves = [2 * HOUR, DAY], [2.0, 60.0]
    parts = [Component(name=f"{at}", per="job", mtbf=mtbf, takes="nothing") for at, mtbf in enumerate(mtbfs)]
    process = FaultProcess(plain_faults(DAY).model_copy(update={"component": tuple(parts)}), ONE)
    low, high = level_intervals(saves, mtbfs)
    levels = (CheckpointLevel("quick", 1, saves[0], 0.0), CheckpointLevel("slow", round(high / low), saves[1], 0.0))
    job = Job(300 * DAY, low, saves[0], 0.0, 0.0, levels=levels, survives=(0, 1))
    walls = [play(job, process.history(seed)).seconds for seed in range(8)]
    assert np.mean(walls) / job.work - 1 == pytest.approx(level_overhead(saves, mtbfs), rel=0.1)
    one = Job(300 * DAY, daly(saves[1], process.mtbf), saves[1], 0.0, 0.0)
    assert np.mean(walls) < play(one, process.history(0)).seconds


def test_levels_are_as_often_as_their_faults_ask():
    names = {"software": "nothing", "node": "nodes", "switch": "supernode"}
    parts = [
        Component(name=name, per="job", mtbf=(4.0**at) * DAY, takes=takes)
        for at, (name, takes) in enumerate(names.items())
    ]
    process = FaultProcess(plain_faults(DAY).model_copy(update={"component": tuple(parts)}), ONE)
    saves, loads = dict(zip(LEVELS, (1.0, 4.0, 64.0), strict=True)), dict.fromkeys(LEVELS, 1.0)
    levels, survives = _levels(process, [0, 1, 2], saves, loads)
    assert survives == (0, 1, 2)
    assert [each.every for each in levels] == [1, 4, 32]
    without, survives = _levels(process, [0, 2], saves, loads)
    assert [each.name for each in without] == ["memory", "file system"]
    assert survives == (0, 1, 1)
