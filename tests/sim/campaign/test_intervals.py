"""Intervals between checkpoints: Daly's published anchors, and closed forms against simulation."""

import numpy as np
import pytest
from athanor.sim.campaign.intervals import (
    daly,
    daly_first_order,
    expected_seconds,
    level_intervals,
    level_overhead,
    young,
)
from athanor.sim.campaign.job import Job
from athanor.sim.campaign.optimum import best_interval
from athanor.sim.campaign.renewals import play
from support.campaigns import DAY, HOUR, plain_process

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
