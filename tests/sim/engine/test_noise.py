"""Jitter and spread: log-normal with mean 1, drawn from tables, each operation by itself."""

from statistics import NormalDist

import numpy as np
import pytest
from athanor.sim.engine import noise
from athanor.sim.engine.noise import PARTS, TAIL, Noise
from athanor.workloads.plan.run_file import resolved
from athanor.workloads.plan.setting import Setting

NORMAL = NormalDist()


def deviations(factor, deviation):
    sigma = np.sqrt(np.log1p(deviation**2))
    return (np.log(factor) + sigma**2 / 2) / sigma


def test_quantiles_are_those_of_the_normal_law():
    at = np.array([1e-12, 1e-7, TAIL / PARTS, 0.1, 0.4999, 0.5, 0.77, 1 - 1e-3, 1 - 1e-9])
    np.testing.assert_allclose(noise._quantiles(at), [NORMAL.inv_cdf(each) for each in at.tolist()], atol=2e-7)


@pytest.mark.parametrize("deviation", [0.05, 0.4])
def test_factors_are_log_normal_with_mean_one(deviation):
    count = 1 << 20
    drawn = noise._lognormal(np.random.default_rng(5), count, deviation)
    assert abs(drawn.mean() - 1) < 4 * deviation / np.sqrt(count)
    assert drawn.std() == pytest.approx(deviation, rel=0.01)
    found = np.sort(deviations(drawn, deviation))
    law = np.array([NORMAL.cdf(each) for each in found[::64].tolist()])
    assert np.abs(law - np.arange(0, count, 64) / count).max() < 1.95 / np.sqrt(count)  # Kolmogorov, one in 1,000


def test_the_longest_of_many_ranks_is_as_long_as_it_is_by_law():
    """Steps wait for the slowest rank: the far tail has no steps, and reaches as far as the law's."""
    random, count, times = np.random.default_rng(7), 20_000, 400
    most = np.array([deviations(noise._lognormal(random, count, 0.1), 0.1).max() for _ in range(times)])
    law = np.array([NORMAL.cdf(each) ** count for each in np.sort(most).tolist()])
    assert np.abs(law - np.arange(times) / times).max() < 1.95 / np.sqrt(times)
    assert len(np.unique(most)) == times


def test_each_operation_draws_for_itself_and_ranks_of_a_node_share():
    found = resolved("selene", "mixtral-8x22b", {"mesh": "dp=4,ep=8,tp=2", "jitter": 0.1, "seed": 3}, True)
    setting = Setting.of(*found[:3])
    layout, drawn = setting.layout, Noise.of(setting, 0)
    first, again, other = (np.asarray(drawn.of_operation(number)) for number in (4, 4, 5))
    assert (first == again).all() and (first != other).any() and first.shape == layout.mesh.shape
    by_node = {node: set(first.reshape(-1)[layout.node == node].tolist()) for node in set(layout.node.tolist())}
    assert all(len(each) == 1 for each in by_node.values())
    assert len(set.union(*by_node.values())) == layout.nodes > 1
    assert (np.asarray(Noise.of(setting, 1).of_operation(4)) != first).any()
