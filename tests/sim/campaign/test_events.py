"""Campaigns played at once and event by event are the same, seed by seed; and laws that hold for both."""

from dataclasses import replace

import pytest
from athanor.hardware.site.faults import Component
from athanor.sim.campaign.faults.events import play_events
from athanor.sim.campaign.faults.fault_history import FaultProcess
from athanor.sim.campaign.faults.renewals import play
from athanor.sim.campaign.job import Job
from support.campaigns import DAY, HOUR, JOBS, MIXED, ONE, many_kinds, plain_faults, plain_process


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", JOBS)
def test_both_ways_agree_on_every_seed(name, seed):
    job, process = JOBS[name], many_kinds()
    fast, slow = play(job, process.history(seed)), play_events(job, process.history(seed))
    assert fast.finished
    assert slow.finished
    assert fast.seconds == pytest.approx(slow.seconds, rel=1e-9)
    assert fast.by_component == slow.by_component
    assert fast.interruptions > 20
    for entry, seconds in slow.ledger.items():
        assert fast.ledger[entry] == pytest.approx(seconds, rel=1e-6, abs=1e-3), entry


@pytest.mark.parametrize("name", JOBS)
def test_the_ledger_is_the_wall_clock_and_the_work_is_done(name):
    job, process = JOBS[name], many_kinds()
    found = play(job, process.history(5))
    assert sum(found.ledger.values()) == pytest.approx(found.seconds, rel=1e-9)
    assert found.ledger["productive"] / (1 - job.stall) == pytest.approx(job.work, rel=1e-9)
    assert min(found.ledger.values()) >= 0


def test_spans_follow_each_other_and_make_up_the_ledger():
    found = play_events(MIXED, many_kinds().history(0), stop=3 * DAY)
    assert not found.finished
    ends = [end for _, end, _ in found.spans]
    assert [start for start, _, _ in found.spans[1:]] == pytest.approx(ends[:-1])
    saving = sum(end - start for start, end, entry in found.spans if entry == "restart")
    assert saving == pytest.approx(found.ledger["restart"])


def test_without_faults_a_campaign_is_its_work_and_its_checkpoints():
    job = Job(10 * HOUR, HOUR, 60.0, 600.0, 60.0)
    found = play(job, plain_process(1e6 * DAY).history(0))
    assert found.seconds == pytest.approx(10 * HOUR + 10 * 60.0)
    assert found.interruptions == 0


def test_what_is_announced_loses_only_its_restart():
    faults = plain_faults(HOUR)
    planned = faults.component[0].model_copy(update={"planned": True})
    process = FaultProcess(faults.model_copy(update={"component": (planned,)}), ONE)
    job = Job(100 * HOUR, 8 * HOUR, 10.0, 50.0, 0.0)
    announced = play(replace(job, planned=frozenset([0])), process.history(0))
    sudden = play(job, process.history(0))
    # what strikes within the ten seconds of a save still takes back what they were to save
    assert announced.ledger["recomputed"] < 0.02 * job.work
    assert announced.seconds < 1.1 * job.work
    assert not sudden.finished  # eight hours seldom go by without a fault


def test_asynchronous_checkpoints_cost_less_and_lose_more():
    process = plain_process(6 * HOUR)
    blocking = Job(200 * HOUR, HOUR, 300.0, 60.0, 0.0)
    asynchronous = replace(blocking, save=10.0, commit=290.0)
    one, other = (play(job, process.history(2)) for job in (blocking, asynchronous))
    assert other.ledger["checkpoint"] < 0.1 * one.ledger["checkpoint"]
    assert other.ledger["recomputed"] > one.ledger["recomputed"] * other.seconds / one.seconds
    assert other.seconds < one.seconds


def test_more_spares_wait_less_and_elastic_jobs_go_on():
    process = many_kinds()
    job = replace(MIXED, work=2 * DAY)
    waits = [play(replace(job, spares=spares), process.history(1)).ledger["repair_wait"] for spares in (3, 6, 12, 64)]
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == 0.0
    elastic = play(replace(job, spares=3, speeds=tuple(1 - 0.02 * each for each in range(33))), process.history(1))
    assert elastic.ledger["repair_wait"] == 0.0
    assert elastic.ledger["degraded"] > 0


def test_a_slow_node_costs_what_it_slows_until_it_is_noticed():
    slow = Component(name="slow", per="job", mtbf=2 * DAY, slowdown=2.0, detection=HOUR, takes="nothing")
    process = FaultProcess(plain_faults(DAY).model_copy(update={"component": (slow,)}), ONE)
    found = play(Job(300 * DAY, HOUR, 10.0, 60.0, 0.0, slowed={0: 0.5}), process.history(0))
    assert found.ledger["degraded"] == pytest.approx(found.interruptions * HOUR / 2, rel=0.05)
