"""What tokens choose: probabilities of successive draws without replacement, and counts that keep their law."""

import itertools

import numpy as np
import pytest
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.loads.token_assignment import dealt, decisions
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing import choices as module
from athanor.workloads.routing.choices import choices
from athanor.workloads.routing.routers import Zipf
from athanor.workloads.routing.token_counts import _by_expert, token_counts
from hypothesis import given, settings
from hypothesis import strategies as st


def orders(chances, top_k):
    """Every order of choices with its probability, as drawing without replacement gives it."""
    for order in itertools.permutations(range(len(chances)), top_k):
        probability, left = 1.0, 1.0
        for expert in order:
            probability *= chances[expert] / left
            left = left - chances[expert] if left > chances[expert] else 1.0
        yield order, probability


@pytest.mark.parametrize(
    ("experts", "exponent", "top_k"), [(6, 1.0, 6), (7, 0.0, 4), (7, 3.0, 5), (5, 6.0, 4), (1, 1, 1)]
)
def test_choices_are_those_of_successive_draws(experts, exponent, top_k):
    chances = Zipf(exponent).shares(experts, 0)[np.random.default_rng(0).permutation(experts)]
    expected = np.zeros((top_k, experts))
    for order, probability in orders(chances, top_k):
        expected[range(top_k), order] += probability
    assert choices(chances, top_k) == pytest.approx(expected, abs=1e-9)


def test_classes_of_popularity_leave_choices_as_they_are(monkeypatch):
    chances = Zipf(1.0).shares(1500, 0)
    found = choices(chances, 5)
    monkeypatch.setattr(module, "ALONE", 1500)
    module._sorted_choices.cache_clear()
    assert choices(chances, 5) == pytest.approx(found, rel=1e-4)
    assert not np.array_equal(choices(chances, 5), found)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(2, 40), st.integers(1, 3000), st.integers(1, 3), st.floats(0, 4))
def test_no_expert_has_a_token_twice(data, experts, tokens, groups, exponent):
    top_k = data.draw(st.integers(1, min(experts, 8)))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    found = token_counts(Zipf(exponent).shares(experts, 0), top_k, tokens, groups, random)
    assert found.shape == (top_k, groups, experts)
    assert found.min() >= 0
    assert (found.sum(axis=-1) == tokens).all()
    assert found.sum(axis=0).max() <= tokens
    chosen = dealt(found[:, 0], random)
    ranked = np.sort(chosen, axis=1)
    assert (ranked[:, 1:] != ranked[:, :-1]).all()
    for choice in range(top_k):
        assert np.bincount(chosen[:, choice], minlength=experts).tolist() == found[choice, 0].tolist()


@pytest.mark.parametrize(
    ("experts", "top_k", "most"), [(16, 16, 1.0), (8, 8, 1.0), (8, 7, 0.3780), (8, 4, 1.0), (64, 6, 3.109)]
)
def test_most_over_mean_where_experts_are_equal(experts, top_k, most):
    """Without replacement an expert's share of T tokens deviates by sqrt((1 - k/E) / (T k/E)), not by sqrt(E / (T k))."""
    tokens, groups = 4096, 1500
    found = token_counts(np.full(experts, 1 / experts), top_k, tokens, groups, np.random.default_rng(1)).sum(axis=0)
    found = found * experts / (tokens * top_k) - 1
    if top_k == experts:
        assert not found.any()
        return
    assert found.std() * tokens**0.5 == pytest.approx(most, rel=0.02)
    normal = np.random.default_rng(2).standard_normal((20_000, experts))
    normal -= normal.mean(axis=1, keepdims=True)
    normal /= normal.std()
    assert found.max(axis=1).mean() == pytest.approx(most * tokens**-0.5 * normal.max(axis=1).mean(), rel=0.03)


@pytest.mark.parametrize(("experts", "top_k", "exponent"), [(12, 3, 0.0), (10, 3, 1.0), (16, 2, 1.0)])
@pytest.mark.parametrize("way", ["exact", "by expert"])
def test_counts_have_the_moments_of_single_tokens(experts, top_k, exponent, way):
    """Means as drawing token by token gives them, and covariances within 4 % of the deviations (10 % for choices apart)."""
    chances, tokens, groups = Zipf(exponent).shares(experts, 0), 3000, 200 if way == "exact" else 16_000
    mean, square = np.zeros(top_k * experts), np.zeros((top_k * experts, top_k * experts))
    for order, probability in orders(chances, top_k):
        cells = np.arange(top_k) * experts + order
        mean[cells] += probability
        square[np.ix_(cells, cells)] += probability
    expected = square - np.outer(mean, mean)
    random = np.random.default_rng(3)
    if way == "exact":
        drawn = np.concatenate([token_counts(chances, top_k, tokens, 4, random) for _ in range(groups // 4)], axis=1)
    else:
        drawn = _by_expert(choices(chances, top_k), tokens, groups, [random])[0]
    drawn = drawn.transpose(1, 0, 2).reshape(groups, -1)
    noise = 5 / groups**0.5
    assert np.abs(drawn.mean(axis=0) / tokens - mean).max() <= noise * (expected.diagonal().max() / tokens) ** 0.5
    found = np.cov(drawn.T) / tokens
    scale = np.sqrt(np.diag(expected))
    assert np.abs((found - expected) / np.outer(scale, scale)).max() < 0.1 + (0.3 if way == "exact" else 0)
    every = np.kron(np.ones(top_k), np.eye(experts))
    found, expected = every @ found @ every.T, every @ expected @ every.T
    scale = np.sqrt(np.diag(expected))
    assert np.abs((found - expected) / np.outer(scale, scale)).max() < 0.04 + (0.3 if way == "exact" else 0)


def test_what_is_wanted_does_not_depend_on_the_balancer():
    options = {"mesh": {"ep": 4, "dp": 6}, "top_k": 2, "router": "zipf:1.0", "tokens_per_rank": 512}
    found = []
    for balancer in ("none", "capacity:1.1", "swipe", "even"):
        loads = LoadModel(Setting.of("cluster-64", "moda-tiny", {**options, "balancer": balancer}))
        found.append((loads.sample(1, 0, 0).wanted_max_over_mean, decisions(loads, 1, 0, 0, 5).tolist()))
    assert all(each == found[0] for each in found)
