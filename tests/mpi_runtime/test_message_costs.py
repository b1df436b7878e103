"""What calibration finds of messages: start, rate, switch and bursts of made-up ones come back, from any of their samples."""

import numpy as np
import pytest
from athanor.mpi_runtime.calibration.message_costs import link_burst, one_way
from athanor.mpi_runtime.calibration.points import COMPUTED, HANDED_ON, NEAR_SWITCHES, BenchPoint
from athanor.mpi_runtime.calibration.samples import judged
from athanor.mpi_runtime.job.sharp_sleep import sharp_sleep

SIZES = sorted({8, 512, *(1 << power for power in range(13, 21)), *NEAR_SWITCHES})
SWITCH = 65536


def ping_pong(wire_rate, burst, start, rate, more=0.0, noise=0.0, sizes=SIZES, computed=0.0):
    """Series of messages there and back in turn, so that a link rests while the other way is taken, by the law of the table."""
    random = np.random.default_rng(3)
    for size in sizes:
        first = start + more * (size >= SWITCH)
        wire, seconds = size / wire_rate, first + size / rate
        for _ in range(200):  # what the other one takes decides for how long a link rests
            seconds = first + max(size / rate, wire - min(burst, first + seconds))
        point = BenchPoint("ping-pong", "made up", size, {"level": "top"})
        yield judged(point, 1, (computed + seconds) * (1 + noise * random.normal(size=9)), [""] * 9)


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize(
    ("wire", "burst", "start", "rate"),
    [
        (125e6, 2e-3, 350e-6, 250e6),
        (25e6, 2.4e-3, 400e-6, 200e6),
        (6.25e6, 4e-3, 400e-6, 300e6),
        (20e6, 0.0, 14e-6, 1e12),
    ],
)
def test_messages_that_the_law_made_are_met(wire, burst, start, rate, noise):
    """Seconds of all sizes, and of sizes that were not measured; the burst of the links; and no more entries than there are."""
    series = list(ping_pong(wire, burst, start, rate, noise=noise))
    found = link_burst(series, wire)
    assert found == pytest.approx(burst, rel=0.15 + 5 * noise, abs=20e-6)
    entries = one_way(series, "top", wire, found).entries()
    assert entries[0].start == pytest.approx(start, rel=0.05 + 5 * noise)
    other = [24, 3000, 12000, 40000, 100_000]
    for each in ping_pong(wire, burst, start, rate, sizes=other):
        size = each.point.size
        mine = [entry for entry in entries if entry.least <= size][-1]
        first = mine.start
        made = first + size / (mine.rate or np.inf)
        for _ in range(200):
            made = first + max(size / (mine.rate or np.inf), size / wire - min(found, first + made))
        assert made == pytest.approx(each.median, rel=0.08 + 3 * noise)


@pytest.mark.parametrize("computed", [0.0, COMPUTED])
def test_a_switch_of_protocols_is_found_where_it_is_and_only_there(computed):
    way = "handed" if computed else "one"
    made = {more: list(ping_pong(1e9, 0.0, 300e-6, 500e6, more, 0.01, computed=computed)) for more in (0.0, 300e-6)}
    (only,) = one_way(made[0.0], "top", 1e9, 0.0, way, computed).entries()
    assert (only.least, only.way) == (0.0, way) and only.start == pytest.approx(300e-6, rel=0.05)
    low, high = one_way(made[300e-6], "top", 1e9, 0.0, way, computed).entries()
    assert high.least == pytest.approx(SWITCH, rel=1e-3)
    assert (low.start, high.start) == pytest.approx((300e-6, 600e-6), rel=0.1)


def test_few_points_tell_nothing():
    assert one_way(list(ping_pong(1e9, 0.0, 1e-4, 1e9, sizes=[8, 512])), "top", 1e9, 0.0).entries() == []
    assert len(HANDED_ON) >= 3 and link_burst([], 1e9) == 0.0


def test_sleeps_end_on_time_and_leave_the_slack_as_it_was():
    """With two milliseconds of slack other sleeps end late; these do not, and what others find is what it was."""
    from athanor.mpi_runtime.job import sharp_sleep as module

    slack = module._prctl()
    if slack is None:
        pytest.skip("this system has no timer slack")
    import time

    before = slack(module.GET_TIMER_SLACK, 0)
    slack(module.SET_TIMER_SLACK, 20_000_000)
    try:
        late = []
        for _ in range(15):
            began = time.perf_counter()
            sharp_sleep(1e-3)
            late.append(time.perf_counter() - began - 1e-3)
        assert slack(module.GET_TIMER_SLACK, 0) == 20_000_000
        assert 0 <= min(late) < 5e-3
    finally:
        slack(module.SET_TIMER_SLACK, before)
