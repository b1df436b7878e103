"""Drift: loads keep a correlation of 1 - drift from step to step."""

from itertools import pairwise
from math import comb, factorial

import athanor
import numpy as np
import pytest
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.drift import Walk, trading_chance
from athanor.workloads.routing.routers import Zipf, popularity
from hypothesis import given
from hypothesis import strategies as st


@given(st.floats(0, 1), st.integers(2, 500))
def test_what_trading_places_leaves_of_the_correlation(drift, experts):
    """The chance of trading against the mean over the binomial number of those that trade."""
    stay = 1 - trading_chance(drift, experts)
    assert (stay * experts - stay**experts) / (experts - 1) == pytest.approx(1 - drift, abs=1e-9)


@pytest.mark.parametrize("drift", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("experts", [3, 40])
def test_popularity_correlates_as_its_drift_says(drift, experts):
    """From step to step by 1 - drift, over n steps by its n-th power; who is popular is as likely in any step."""
    shares = Zipf(1.0).shares(experts, 0)
    walks = [Walk(experts, 0, drift, seed) for seed in range(60 if experts > 3 else 200)]
    found = np.array([[shares[each.at(step)[0]] for step in range(60)] for each in walks]) - shares.mean()
    for lag in (1, 2, 3):
        left = (found[:, lag:] * found[:, :-lag]).mean() / (found**2).mean()
        assert left == pytest.approx((1 - drift) ** lag, abs=0.03)
    assert found.mean(axis=(0, 1)) == pytest.approx(np.zeros(experts), abs=4 * shares.std() * len(walks) ** -0.5)


@pytest.mark.parametrize("router", ["uniform", "zipf:1.0"])
@pytest.mark.parametrize("drift", [0.0, 0.4, 1.0])
def test_loads_correlate_as_their_drift_says(router, drift):
    """Of popular experts and of the tokens that chance makes: over steps and layers."""
    options = {"mesh": {"ep": 4}, "router": router, "drift": drift, "balancer": "none", "tokens_per_rank": 512}
    model = athanor.load_model("moda-tiny").with_experts(64)
    loads = LoadModel(Setting.of("cluster-64", model, options))
    found = np.array([[loads.of_experts(layer, step, 0)[0, 0] for step in range(40)] for layer in range(30)])
    found = found - found.mean(axis=-1, keepdims=True)
    left = (found[:, 1:] * found[:, :-1]).mean() / (found**2).mean()
    assert left == pytest.approx(1 - drift, abs=0.05 if drift else 1e-12)


def test_a_draw_that_is_kept_is_the_same_however_often_it_is_asked_for():
    """Whoever has a place in a step has what was drawn for it: loads that know of earlier steps say what new ones say."""
    options = {"mesh": {"ep": 4}, "router": "zipf:1.0", "drift": 0.3, "balancer": "none", "tokens_per_rank": 512}
    setting = Setting.of("cluster-64", athanor.load_model("moda-tiny").with_experts(16), options)
    walk, kept, repeated = Walk(16, 1, 0.3, setting.plan.seed), dict[int, list[int]](), 0
    for step in range(12):
        found = LoadModel(setting).of_experts(1, step, 0)[0, 0]
        new = Setting.of("cluster-64", setting.model, options)
        assert found.tolist() == LoadModel(new).of_experts(1, step, 0)[0, 0].tolist()
        places, drawn = walk.at(step)
        repeated += drawn in kept
        assert kept.setdefault(drawn, found[np.argsort(places)].tolist()) == found[np.argsort(places)].tolist()
    assert repeated


def test_step_times_move_as_far_as_loads_drift():
    options = {"mesh": {"ep": 8}, "router": "zipf:1.0", "balancer": "none", "tokens_per_rank": 256, "steps": 12}
    model = athanor.load_model("moda-tiny").with_experts(32)

    def seconds(drift):
        run = athanor.simulate("cluster-64", model, drift=drift, **options)
        return run.to_frame().groupby("step")["end"].max().to_numpy()

    still, some, all_new = (seconds(drift) for drift in (0.0, 0.2, 1.0))
    assert len(set(still)) == 1
    assert some[0] == all_new[0] == still[0]
    assert len(set(some)) > 2 and len(set(all_new)) == 12
    assert np.abs(np.diff(some)).mean() < np.abs(np.diff(all_new)).mean()
    assert all_new.std() > 0.01 * all_new.mean()


def test_every_step_is_the_same_in_whatever_order_steps_are_asked_for():
    walk, again = Walk(16, 3, 0.3, 5), Walk(16, 3, 0.3, 5)
    forward = [(walk.at(step)[0].tolist(), walk.at(step)[1]) for step in range(9)]
    for step in (8, 2, 5, 0):
        places, drawn = again.at(step)
        assert (places.tolist(), drawn) == forward[step]
    assert (popularity(Zipf(1.0), 16, 3, 0, 1.0, 5) == popularity(Zipf(1.0), 16, 3, 0, 0.0, 5)).all()


@pytest.mark.parametrize("drift", [0.1, 0.5, 0.9])
def test_steps_repeat_as_often_as_drift_lets_them(drift):
    """A layer repeats where its tokens are kept and whoever trades places gets the same back: n of them by chance 1 / n!."""
    experts, steps = 4, 4000
    walk = Walk(experts, 0, drift, 0)
    seen = [(tuple(places), drawn) for places, drawn in (walk.at(step) for step in range(steps))]
    trading = trading_chance(drift, experts)
    same = sum(
        comb(experts, n) * trading**n * (1 - trading) ** (experts - n) / factorial(n) for n in range(experts + 1)
    )
    expected, found = (1 - drift) * same, np.mean([one == other for one, other in pairwise(seen)])
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / steps))


@pytest.mark.parametrize("drift", [0.0, 0.5, 1.0])
def test_steps_take_equally_long_only_where_no_layer_drifted(drift):
    """With 0 all are one step, with 1 none is as the one before, and between them those are equal of which the walk says so."""
    options = {"mesh": "ep=4", "global_batch": 16, "micro_batch": 1, "router": "zipf:1.0", "balancer": "none"}
    run = athanor.simulate("cluster-64", "moda-tiny", **options, drift=drift, steps=10)
    seconds = run.summary()["each_step_seconds"]
    layers = [Walk(4, layer, drift, 0) for layer in range(2)]
    walks = [[(tuple(places), drawn) for places, drawn in (each.at(step) for each in layers)] for step in range(10)]
    equal = [one == other for one, other in pairwise(walks)]
    assert all(equal) if not drift else not all(equal)
    assert [one == other for one, other in pairwise(seconds)] == equal
