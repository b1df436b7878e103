"""The fluid network by its laws, and against rates worked out from nothing, one link at a time."""

import numpy as np
import pytest
import simpy
from athanor.sim.network.distinct import distinct
from athanor.sim.network.fluid import Fluid, fill
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.naive_messages import NaiveShared, weighted_max_min


@st.composite
def problems(draw):
    """Random routes ``[hops, flows]`` on links of which the last stands for none, with usage, weights and capacities."""
    flows, links, hops = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    route = np.full((hops, flows), links)
    for flow in range(flows):
        own = draw(st.lists(st.integers(0, links - 1), min_size=1, max_size=hops, unique=True))
        route[: len(own), flow] = own
    usage = np.where(route < links, draw(st.sampled_from([1.0, 0.5, 3.0])), 0.0)
    usage[0] = np.where(route[0] < links, 1.0, 0.0)
    weight = np.array([float(draw(st.integers(1, 5))) for _ in range(flows)])
    capacity = np.array([*(float(draw(st.integers(1, 20))) for _ in range(links)), np.inf])
    return route, usage, weight, capacity


def endless(weight):
    return np.full(len(weight), np.inf)


@settings(deadline=None)
@given(problems())
def test_rates_equal_filling_one_link_at_a_time(problem):
    route, usage, weight, capacity = problem
    flows = [
        {
            "uses": {int(link): part for link, part in zip(route[:, f], usage[:, f], strict=True) if part},
            "weight": weight[f],
        }
        for f in range(len(weight))
    ]
    expected = weighted_max_min(flows, dict(enumerate(capacity[:-1])))
    assert weight * fill(route, usage * weight, endless(weight), capacity) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(problems(), st.data())
def test_each_flow_has_a_full_link_with_the_largest_share_or_its_limit(problem, data):
    route, usage, weight, capacity = problem
    limit = np.array([float(data.draw(st.integers(1, 9))) for _ in weight])
    rates = weight * fill(route, usage * weight, limit / weight, capacity)
    used = np.bincount(route.ravel(), (usage * rates).ravel(), len(capacity))
    assert (used <= capacity * (1 + 1e-9)).all()
    assert (rates <= limit * (1 + 1e-9)).all()
    level = rates / weight
    for flow in range(len(weight)):
        full = [
            link
            for link in route[:, flow]
            if used[link] >= capacity[link] * (1 - 1e-9)
            and level[flow] >= level[(route == link).any(axis=0)].max() * (1 - 1e-9)
        ]
        assert full or rates[flow] == pytest.approx(limit[flow])


def ends(route, usage, weight, nbytes, starts, capacity):
    """When each flow ends that begins at its own time: the network of the simulator, from event to event."""
    fluid = Fluid(len(weight), len(route), capacity)
    found, waiting = np.zeros(len(weight)), np.array(starts, dtype=float)
    fluid.book(np.arange(len(weight)), route.T, usage.T, weight, endless(weight), nbytes)
    while (now := min(fluid.next(), waiting.min())) < np.inf:
        found[fluid.advance(now)] = now
        ready = np.flatnonzero(waiting <= now)
        waiting[ready] = np.inf
        fluid.begin(ready)
        fluid.settle()
    return found


def draw_flows(data, weight):
    nbytes = np.array([float(data.draw(st.integers(1, 30))) for _ in weight])
    starts = np.array([float(data.draw(st.integers(0, 8))) for _ in weight])
    return nbytes, starts


@settings(deadline=None, max_examples=200)
@given(problems(), st.data())
def test_flows_that_come_and_go_equal_rates_worked_out_anew_at_each_change(problem, data):
    """Warm starts touch only what a change can have touched."""
    route, usage, weight, capacity = problem
    nbytes, starts = draw_flows(data, weight)
    env = simpy.Environment()
    network, expected = NaiveShared(env, dict(enumerate(capacity[:-1]))), np.zeros(len(weight))

    def flow(number):
        uses = {int(link): part for link, part in zip(route[:, number], usage[:, number], strict=True) if part}
        yield env.timeout(starts[number])
        yield network.send(uses, nbytes[number], weight[number])
        expected[number] = env.now

    for number in range(len(weight)):
        env.process(flow(number))
    env.run()
    assert ends(route, usage, weight, nbytes, starts, capacity) == pytest.approx(expected, rel=1e-8)


@settings(deadline=None)
@given(problems(), st.data())
def test_a_flow_in_two_halves_of_half_the_weight_is_the_same_flow(problem, data):
    route, usage, weight, capacity = problem
    nbytes, starts = draw_flows(data, weight)
    whole = ends(route, usage, weight, nbytes, starts, capacity)
    halves = [np.hstack([each, each[..., :1]]) for each in (route, usage, weight, nbytes, starts)]
    for each in halves[2:4]:
        each[[0, -1]] /= 2
    assert ends(*halves, capacity) == pytest.approx(np.append(whole, whole[0]), rel=1e-9)


@settings(deadline=None)
@given(problems(), st.data())
def test_the_order_of_flows_and_links_does_not_matter(problem, data):
    route, usage, weight, capacity = problem
    nbytes, starts = draw_flows(data, weight)
    flows = data.draw(st.permutations(range(len(weight))))
    links = np.array([*data.draw(st.permutations(range(len(capacity) - 1))), len(capacity) - 1])
    other = np.empty_like(capacity)
    other[links] = capacity
    moved = ends(links[route][:, flows], usage[:, flows], weight[flows], nbytes[flows], starts[flows], other)
    assert moved == pytest.approx(ends(route, usage, weight, nbytes, starts, capacity)[flows], rel=1e-9)


@settings(deadline=None)
@given(problems(), st.data(), st.sampled_from([2.0, 3.5]))
def test_time_scales_with_bandwidth(problem, data, factor):
    route, usage, weight, capacity = problem
    nbytes, starts = draw_flows(data, weight)
    slow = ends(route, usage, weight, nbytes, 0 * starts, capacity)
    assert ends(route, usage, weight, nbytes, 0 * starts, capacity * factor) == pytest.approx(slow / factor, rel=1e-9)


@settings(deadline=None)
@given(problems(), st.data())
def test_all_bytes_are_carried_by_links_that_are_full_for_someone(problem, data):
    """Work is conserved: while flows are under way, some link is full."""
    route, usage, weight, capacity = problem
    nbytes, _ = draw_flows(data, weight)
    fluid = Fluid(len(weight), len(route), capacity)
    every = np.arange(len(weight))
    fluid.book(every, route.T, usage.T, weight, endless(weight), nbytes)
    fluid.begin(every)
    carried = np.zeros(len(weight))
    while True:
        fluid.settle()
        if (then := fluid.next()) == np.inf:
            break
        active = fluid.end < np.inf
        rates, before = np.where(active, fluid.rate, 0.0), fluid.now
        used = np.bincount(route.ravel(), (usage * rates).ravel(), len(capacity))
        assert (used <= capacity * (1 + 1e-9)).all()
        assert (used[:-1] >= capacity[:-1] * (1 - 1e-9)).any()
        fluid.advance(then)
        carried += rates * (fluid.now - before)
    assert carried == pytest.approx(nbytes, rel=1e-9)


@given(st.lists(st.integers(-3, 3), max_size=9), st.sampled_from([np.int32, np.int64, np.float64]))
def test_distinct_values_are_those_of_numpy(values, kind):
    found, expected = distinct(np.array(values, dtype=kind)), np.unique(np.array(values, dtype=kind))
    assert (found.tolist(), found.dtype) == (expected.tolist(), expected.dtype)
