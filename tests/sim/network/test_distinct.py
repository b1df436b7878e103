"""Numbers of distinct keys are those of sorting, however many keys there are and however many of them differ."""

import numpy as np
import pytest
from athanor.sim.network.distinct import FEW, distinct, first_of_each, numbered
from athanor.sim.network.phases.flow_symmetry import scattered


@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, 10 * FEW])
@pytest.mark.parametrize("kinds", [1, 7, 300, 10**6])  # a million kinds have no slots of their own
def test_keys_are_numbered_as_by_sorting(count, kinds):
    keys = scattered(np.random.default_rng(kinds).integers(kinds, size=count).astype(np.uint64))
    values, first, number = np.unique(keys, return_index=True, return_inverse=True)
    assert (numbered(keys) == number).all()
    assert (first_of_each(number) == first).all()
    assert (distinct(keys) == values).all()


def test_keys_that_share_a_slot_stay_apart():
    keys = np.repeat(np.array([5, 5 + (1 << 40), 5 + (1 << 50)], dtype=np.uint64), FEW)
    assert (numbered(keys) == np.repeat([0, 1, 2], FEW)).all()
