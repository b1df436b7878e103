"""Ranking: what is kept of many plans is what sorting all of them would keep, and every plan is counted once."""

import json
import time
from collections import Counter
from itertools import count

import pytest
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.sim.planning import ranking
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.ranking import (
    MEMORY,
    ROOMIER,
    KeptPlans,
    Ranked,
    RankedPlans,
    fastest,
    pareto,
    rank,
    rank_mesh,
    reason,
)
from athanor.sim.planning.space import Space
from athanor.workloads.memory.need import Memory
from hypothesis import given
from hypothesis import strategies as st
from support.small_searches import FEW, asked

MESH = {"dp": 4}


def ranked(seconds, nbytes, number=0, mesh=None):
    return Ranked(mesh or {"dp": number + 1}, {"micro_batch": number}, float(seconds), {"total": float(nbytes)})


points = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12)


def beaten(plan, others):
    return any(other.seconds <= plan.seconds and other.total <= plan.total for other in others)


@given(points, st.integers(1, 4))
def test_a_plan_is_wanted_where_it_could_be_among_the_fastest_or_on_the_front(made, keep):
    kept, before = KeptPlans(keep), []
    for number, point in enumerate(made):
        plan = ranked(*point, number)
        times = sorted(each.seconds for each in before)
        fast = len(times) < keep or plan.seconds <= times[keep - 1]
        assert kept.wants(plan.seconds, plan.total) == (fast or not beaten(plan, before))
        kept.add(plan)
        before.append(plan)
        assert kept.plans == before
        assert [seconds for seconds, _ in kept.front] == sorted(seconds for seconds, _ in kept.front)
        assert dict(kept.front) == {each.seconds: each.total for each in pareto(before)}, (
            "the last of equal times counts"
        )


@given(points, st.integers(1, 4))
def test_plans_that_are_neither_wanted_nor_equal_to_one_are_missed_by_nobody(made, keep):
    kept, every = KeptPlans(keep), [ranked(*point, number) for number, point in enumerate(made)]
    for plan in reversed(every):  # so that the last comer of equal ones is the first in order
        if kept.wants(plan.seconds, plan.total) or kept.has_equal(plan.seconds, plan.total):
            kept.add(plan)
    assert fastest(kept.plans, keep) == fastest(every, keep)
    assert pareto(kept.plans) == pareto(every)


@given(points, points, st.integers(1, 4))
def test_parts_add_up(one, other, keep):
    def part(made, offset):
        plans = sorted(
            (ranked(*point, number + offset) for number, point in enumerate(made)), key=lambda each: each.order
        )
        counts = Counter({"memory": offset, "heads": len(made)})
        return RankedPlans(
            10 + offset, 7 + len(made), 0.5 + offset, counts, plans[:keep], pareto(plans), plans[:1], plans[:1]
        )

    parts, whole = [part(one, 0), part(other, 20)], RankedPlans()
    for each in parts:
        whole.add(RankedPlans.from_plain(json.loads(json.dumps(each.plain()))), keep)
    assert (whole.enumerated, whole.judged, whole.seconds) == (40, 14 + len(one) + len(other), 21.0)
    assert whole.pruned == Counter({"memory": 20, "heads": len(one) + len(other)})
    assert whole.ranked == 40 - 20 - len(one) - len(other)
    every = sorted(
        (each for found in parts for each in found.best), key=lambda each: (each.seconds, each.total, each.order[2])
    )
    assert whole.best == every[:keep]
    assert whole.roomier == every[:1]
    assert whole.by_mesh == sorted((each for found in parts for each in found.best[:1]), key=lambda each: each.order)
    fronts = [each for found in parts for each in found.front]
    kept = {(each.seconds, each.total) for each in whole.front}
    assert kept == {
        (each.seconds, each.total)
        for each in fronts
        if not beaten(each, [other for other in fronts if (other.seconds, other.total) != (each.seconds, each.total)])
    }
    assert len(whole.front) == len(kept)


def test_equally_good_plans_have_an_order_whatever_came_first():
    one, other = ranked(1, 1, 0, {"dp": 2}), ranked(1, 1, 0, {"tp": 2})
    assert (one.order < other.order) != (other.order < one.order)
    assert ranked(1, 1, 0, MESH).order != ranked(1, 1, 1, MESH).order
    turned = Ranked(MESH, {"zero": "1", "chunks": 1}, 1.0, {"total": 1.0})
    assert turned.order == Ranked(MESH, {"chunks": 1, "zero": "1"}, 1.0, {"total": 1.0}).order


@given(st.lists(points, max_size=5), st.integers(1, 4))
def test_meshes_that_know_of_each_other_lose_nothing_that_their_search_asks_for(meshes, keep):
    """Neither the fastest of all, nor the front of all, nor the fastest of each; whichever comes first."""
    number = count()
    every = [[ranked(*point, next(number), {"dp": at + 1}) for point in made] for at, made in enumerate(meshes)]
    for order in (every, every[::-1]):
        among, whole = KeptPlans(keep), RankedPlans()
        for plans in order:
            kept = KeptPlans(keep, among)
            for plan in plans:
                if kept.wants(plan.seconds, plan.total) or kept.has_equal(plan.seconds, plan.total):
                    kept.add(plan)
            best = fastest(kept.plans, keep)
            whole.add(RankedPlans(best=best, front=pareto(kept.plans), by_mesh=best[:1]), keep)
        found = [plan for plans in every for plan in plans]
        assert whole.best == fastest(found, keep)
        assert whole.front == pareto(found)
        assert {str(each.mesh): each.seconds for each in whole.by_mesh} == {
            str(plans[0].mesh): min(each.seconds for each in plans) for plans in every if plans
        }


def test_what_a_mesh_before_has_beaten_is_not_worked_out():
    """Of plans that can be neither among the fastest nor on the front no time is asked for, but for a mesh's own fastest."""
    among, slow = ranking.KeptOfAll.of(1), Told([(8, 50, 0), (9, 50, 0), (9, 60, 0), (9, 20, 0)])
    rank(Told([(1, 50, 0)]), Told([(1, 50, 0)]), MESH, 1, among)
    found = rank(slow, slow, MESH, 1, among)
    assert [each.options["number"] for each in found.front] == [0, 3]
    assert found.best == found.by_mesh == found.front[:1]
    assert len(slow.told) == 2


class Told:
    """An estimator that has been told the answers: by a plan's number, (seconds, bytes, bytes of the host)."""

    CAPACITY, HOST = 100.0, 50.0

    def __init__(self, answers):
        self.answers, self.asked, self.told = answers, [], []

    def plans(self, mesh):
        assert mesh == MESH
        return ({"number": number} for number in range(len(self.answers)))

    def setting(self, mesh, options):
        answer = self.answers[options["number"]]
        if isinstance(answer, Exception):
            raise answer
        return options["number"]

    def memory(self, number):
        _, nbytes, host = self.answers[number]
        return Memory(nbytes - 1, 0.0, 1.0, 0.0, 0.0, self.CAPACITY, host, self.HOST)

    def seconds(self, number, worth):
        seconds = self.answers[number][0]
        self.asked.append(number)
        if isinstance(seconds, Exception):
            raise seconds
        if not worth(seconds):
            return None
        self.told.append(number)
        return seconds


RULED = InputError("dp=3 does not divide 8 sequences", "dp divides the sequences")

plan_answers = st.one_of(
    st.tuples(st.integers(1, 9), st.sampled_from([20, 50, 99, 100, 101, 150, 199, 200, 201, 300]), st.sampled_from([0, 50, 51])),
    st.sampled_from([RULED, InputError("no rule"), DoesNotFit("too large")]),
    st.just((InputError("cannot be played", "played"), 20, 0)),
)  # fmt: skip


@given(st.lists(plan_answers, max_size=15), st.integers(1, 3))
def test_ranking_a_mesh_is_sorting_all_its_plans(answers, keep):
    told = Told(answers)
    found = rank(told, told, MESH, keep)
    judged = [number for number, each in enumerate(answers) if isinstance(each, tuple)]
    fits = [number for number in judged if answers[number][1] <= told.CAPACITY and answers[number][2] <= told.HOST]
    larger = [
        number
        for number in judged
        if number not in fits and answers[number][1] <= ROOMIER * told.CAPACITY and answers[number][2] <= told.HOST
    ]
    wrong = Counter(reason(each if isinstance(each, Exception) else each[0]) for each in answers
                    if isinstance(each, Exception) or isinstance(each[0], Exception))  # fmt: skip
    assert told.asked == sorted([*fits, *larger])
    assert (found.enumerated, found.judged) == (len(answers), len(judged))
    expected = wrong + Counter({MEMORY: len(judged) - len(fits)})
    assert found.pruned == expected
    assert found.ranked == len(answers) - expected.total()

    def plans(numbers):
        """As they are ordered, with all parts of their memory."""
        made = [
            Ranked(MESH, {"number": n}, answers[n][0], {**told.memory(n).table(), "host": answers[n][2]})
            for n in numbers
            if not isinstance(answers[n][0], Exception)
        ]
        return sorted(made, key=lambda each: each.order)

    assert found.best == plans(fits)[:keep]
    assert found.by_mesh == plans(fits)[:1]
    assert found.front == pareto(plans(fits))
    assert found.roomier == plans([*fits, *larger])[:1]


def test_what_the_processor_took_is_told(monkeypatch):
    clock = iter([3.0, 5.5])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    told = Told([(1.0, 20, 0)])
    assert ranking.rank(told, told, MESH, 1).seconds == 2.5


def test_what_breaks_a_rule_is_counted_under_it_and_all_else_under_what_it_says():
    assert reason(RULED) == "dp divides the sequences"
    assert reason(InputError("no rule")) == "no rule"
    assert reason(DoesNotFit("too large")) == "too large"


@pytest.mark.parametrize("twice", [False, True])
def test_the_front_has_each_trade_once(twice):
    plans = [ranked(1, 9, 0), ranked(2, 5, 1), ranked(2, 9, 2), ranked(3, 5, 3), ranked(4, 1, 4)] * (1 + twice)
    assert [(each.seconds, each.total) for each in pareto(plans)] == [(1, 9), (2, 5), (4, 1)]


def test_what_is_known_of_a_question_serves_its_next_mesh_alone(monkeypatch):
    made = []
    monkeypatch.setattr(ranking, "Estimator", lambda question: made.append(question) or Estimator(question))
    monkeypatch.setattr(ranking, "_estimators", {})
    one, other = Space(asked(**FEW)), Space(asked(batch=16, **FEW))
    fresh = rank(Estimator(one.question), one, one.meshes[0], 2)
    for space in (one, one, other, one):
        for mesh in space.meshes[:2]:
            found = rank_mesh((space, mesh, 2))
            if space is one and mesh == one.meshes[0]:
                assert (found.best, found.front, found.pruned) == (fresh.best, fresh.front, fresh.pruned)
            assert len(found.best) == 2
            assert {str(each.mesh) for each in found.best} == {str(mesh)}
    assert made == [one.question, other.question, one.question]
    assert len(ranking._estimators) == 1, "of the last question alone, as they are large"
