"""Times that can be trusted: one clock whatever its ranks' clocks do, starts that are together, and what disturbed a run."""

import json
import time
from math import comb

import numpy as np
import pytest
from athanor.mpi_runtime.execute.observation import Times
from athanor.mpi_runtime.execute.starts import APART, Starts, median_interval
from athanor.mpi_runtime.job.clock import EVERY, Clock, Reading, sleep_until
from athanor.mpi_runtime.job.host import BUSY, SLOWED, Conditions
from support.mpi_jobs import job, needs_mpi
from support.paths import JOBS


@pytest.mark.parametrize("drift", [0.0, 5e-5, -2e-4])
@pytest.mark.parametrize("noise", [0.0, 2e-6])
def test_a_clock_that_drifts_is_followed(drift, noise):
    """Between comparisons, and after the last one, to within what the clock says of itself."""
    random, clock = np.random.default_rng(1), Clock()

    def true(moment):
        return 7.0 + drift * moment

    for moment in np.arange(0, 8 * EVERY, EVERY):
        seen = true(moment) + noise * random.uniform(-1, 1)
        clock.add(Reading(float(moment), float(seen), noise))
        if len(clock.readings) > 3:
            for later in (0.3, 0.9):
                error = abs(clock.offset_at(moment + later * EVERY) - true(moment + later * EVERY))
                assert error <= clock.uncertainty + 1e-12
    assert clock.rate == pytest.approx(drift, abs=noise / EVERY + 1e-12)


def test_a_jump_of_a_clock_is_in_its_uncertainty():
    clock = Clock([Reading(moment, 0.0, 1e-6) for moment in (0.0, 1.0, 2.0)])
    clock.add(Reading(3.0, 1e-3, 1e-6))
    assert clock.uncertainty > 9e-4


def test_a_sleep_ends_with_its_moment():
    moment = time.perf_counter() + 0.01
    sleep_until(moment, spin=1e-3)
    assert time.perf_counter() >= moment


def test_steps_count_from_the_first_start_and_late_ones_not():
    starts = Starts()
    ranks = [(Times(np.array([0.1 + by]), np.array([0.5 + by]), np.zeros(1)), by) for by in (0.02, 0.05)]
    shifted = starts.from_first(ranks)
    assert [each.begin[0] for each in shifted] == pytest.approx([0.1, 0.13])
    assert [each.end[0] for each in shifted] == pytest.approx([0.5, 0.53])
    assert starts.late(0.53) and not starts.late(0.031 / APART)
    starts.take(late=True)
    told = starts.plain([0.5])
    assert told["starts_apart_seconds"] == pytest.approx([0.03]) and told["steps_rejected"] == 0
    assert "1 of 1 steps" in next(starts.warnings())


@pytest.mark.parametrize("count", range(1, 40))
def test_the_interval_of_a_median_holds_it(count):
    """For any distribution: between the order statistics that are told, coins that fall on one side make 95 % or more."""
    found = median_interval(list(range(count)))
    if found is None:
        assert count < 6  # one of each half is all that five can say: 93.75 %
        return
    low, high = map(int, found)
    assert low + high == count - 1
    outside = sum(comb(count, each) for each in range(low + 1)) / 2**count
    assert 2 * outside <= 0.05 < 2 * (outside + comb(count, low + 1) / 2**count)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, None),
        ({"foreign_cores": 2 * BUSY}, "other processes"),
        ({"load_before": 2.5}, "load of a host"),
        ({"ranks": 3}, "3 ranks share 2 cores"),
        ({"megahertz": (0.9 * SLOWED * 3000, 3000.0)}, "slowed down"),
        ({"megahertz": (0.0, 0.0)}, None),
    ],
)
def test_conditions_that_disturb_are_said(changed, word):
    quiet = {
        "foreign_cores": 0.0, "load_before": 0.5, "cores": 2, "ranks": 2, "pinned": True, "megahertz": (2900.0, 3000.0)
    }  # fmt: skip
    found = list(Conditions(**{**quiet, **changed}).warnings())
    assert [word in text for text in found] == ([True] if word else [])


@needs_mpi
def test_ranks_whose_clocks_differ_and_drift_begin_together():
    """The clock of rank 1 is five seconds off and a thousandth too fast; by the computer's own clock both begin at once."""
    done = job(2, "python", JOBS / "clocks.py")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rate"] == pytest.approx(-1e-3, abs=2e-4 + told["uncertainty"] / 0.1)
    for apart, uncertainty in told["starts"]:
        assert apart <= uncertainty + 1e-6
    assert told["one kernel"] == [0.0, 0.0]
