"""Where a rank's seconds go: every one to the first thing that it waits for, or to those who had not come yet."""

import athanor
import numpy as np
import pytest
from athanor.workloads.results.time_breakdown import Done, Exposure, RankExposure
from athanor.workloads.results.totals import OPTIONAL, Totals
from athanor.workloads.schedule.operation import CATEGORIES, PHASES
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pytest import approx
from support.strategies import DENSE, flat, plan

RANKS = 3
times = st.lists(st.integers(0, 12), min_size=RANKS, max_size=RANKS).map(np.array)


@st.composite
def operations(draw):
    begin, lasts = draw(times), draw(times)
    return Done(draw(st.sampled_from(CATEGORIES)), draw(st.sampled_from(PHASES)), begin, begin + lasts)


def expected(clock, awaited):
    """Second by second and rank by rank: {(phase, category): seconds of each rank}, and when each is through."""
    order = sorted(awaited, key=lambda each: each.begin.mean())
    found, ends = {}, []
    for rank in range(RANKS):
        end = max([clock[rank], *(each.end[rank] for each in order)])
        ends.append(end)
        for second in range(clock[rank], end):
            first = next(each for each in order if each.end[rank] > second)
            category = first.category if second >= first.begin[rank] else "imbalance"
            found.setdefault((first.phase, category), np.zeros(RANKS))[rank] += 1
    return found, ends


@given(times, st.lists(operations(), max_size=4))
def test_every_second_of_waiting_is_somebody_s(clock, awaited):
    found, by_rank = Exposure(), RankExposure()
    seconds, ends = expected(clock, awaited)
    for each in (found, by_rank):
        assert list(each.wait(clock, awaited)) == ends
    for phase in PHASES:
        for category in CATEGORIES:
            mine = seconds.get((phase, category), np.zeros(RANKS))
            assert found.seconds[phase][category] == approx(mine.mean())
            assert list(by_rank.parts.get((phase, category), np.zeros(RANKS))) == list(mine)


@given(times, st.lists(times, min_size=1, max_size=3))
def test_a_stage_that_ended_early_waits_for_the_last_one_before_any_other(late, waits):
    """What is left of ``late`` is the pipeline's bubble; only then are others to blame."""
    found, left = RankExposure(), late.copy()
    found.late = late.copy()
    bubble, imbalance = np.zeros(RANKS), np.zeros(RANKS)
    for seconds in waits:
        found.idle("update", seconds)
        mine = np.minimum(left, seconds)
        bubble, imbalance, left = bubble + mine, imbalance + seconds - mine, left - mine
        assert list(found.late) == list(left)
    assert list(found.parts["backward", "pipeline_bubble"]) == list(bubble)
    assert list(found.parts["update", "imbalance"]) == list(imbalance)
    assert set(found.parts) == {("backward", "pipeline_bubble"), ("update", "imbalance")}


def test_a_single_value_stands_for_all_ranks():
    found = Exposure()
    found.spend("compute", "forward", np.array([[2.0]]))
    found.spend("compute", "forward", np.array([[1.0], [4.0]]))
    assert found.seconds["forward"]["compute"] == 4.5
    assert found.late is None
    assert sum(sum(each.values()) for each in found.seconds.values()) == 4.5


@pytest.fixture(scope="module")
def summary():
    return athanor.simulate(flat(), DENSE, **plan(mesh={"dp": 2})).summary()


@pytest.mark.parametrize(
    "wrong",
    [
        {"each_step_seconds": []},
        {"step_seconds": 0.0},
        {"step_seconds": float("inf")},
        {"flops_per_second": float("nan")},
        {"ranks": 2.5},
        {"another": 1},
        {"network": {"depth": "bound", "routing": "static", "more": 1}},
        {"network": {"depth": "bound"}},
        {"links": [{"kind": "nic"}]},
    ],
    ids=str,
)
def test_totals_that_no_run_has_are_refused(summary, wrong):
    Totals.model_validate(summary)
    with pytest.raises(ValidationError):
        Totals.model_validate({**summary, **wrong})


def test_links_are_told_in_numbers(summary):
    (link, *_) = summary["links"]
    for wrong in ({"mean_utilisation": float("nan")}, {"more": 1}):
        with pytest.raises(ValidationError):
            Totals.model_validate({**summary, "links": [{**link, **wrong}]})


@pytest.mark.parametrize("given_keys", [(), ("step_seconds_low", "step_seconds_high"), ("measured",)])
def test_keys_that_only_some_runs_have_are_left_out_elsewhere(summary, given_keys):
    values = {"step_seconds_low": 1.0, "step_seconds_high": 2.0, "measured": {"ranks": 2}}
    asked = {**summary, **{key: values[key] for key in given_keys}}
    totals = Totals.model_validate(asked)
    assert {key for key in OPTIONAL if key in totals.plain()} == set(given_keys) | (set(OPTIONAL) & set(summary))
    assert totals.plain() == asked
    assert all(totals[key] == value for key, value in asked.items())
    with pytest.raises(ValidationError):
        totals.ranks = 3


@pytest.mark.parametrize("early", [0.0, 2.0])
def test_what_begins_after_all_that_was_done_is_attributed_as_elsewhere(early):
    """Groups' times are arrays of size 1 along their axes: clocks and means are those of all ranks one by one."""
    random = np.random.default_rng(3)
    clock = random.random((4, 3)) + early  # early: some ranks go on after the exchange has begun
    begin = clock.max(axis=0, keepdims=True) - early
    end = begin + random.random((1, 3))
    books, whole = RankExposure(), np.broadcast_to
    later = books.wait(clock, [Done("all_to_all", "forward", begin, end)])
    wanted = np.maximum(clock, end)
    worked = np.maximum(0.0, wanted - np.maximum(clock, begin))
    assert np.allclose(whole(later, clock.shape), wanted, rtol=1e-15)
    assert np.allclose(whole(books.parts["forward", "all_to_all"], clock.shape), worked, atol=1e-15)
    assert np.allclose(whole(books.parts["forward", "imbalance"], clock.shape), wanted - clock - worked, atol=1e-15)
    if not early:
        assert later.shape == (1, 3)  # which what follows is as small as
