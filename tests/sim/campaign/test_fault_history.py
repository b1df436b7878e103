"""Faults: their rates, their independence of how they are asked for, lemons, and what they take along."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.site.assumed import read_faults
from athanor.hardware.site.faults import Component
from athanor.sim.campaign.faults.fault_history import FaultProcess, InUse, log_normal
from support.campaigns import DAY, many_kinds, plain_faults

USED = InUse(nodes=512, accelerators=2048, interfaces=1024, supernodes=4)


def with_components(*components, **more):
    return plain_faults(DAY).model_copy(update={"component": components, **more})


def test_faults_are_the_same_however_far_they_are_asked_for_at_a_time():
    process = many_kinds()
    whole = process.history(3).until(900 * DAY)
    history = process.history(3)
    history.until(10 * DAY)
    later = history.until(900 * DAY)
    assert len(whole.time) > 9000
    for name in whole.__dataclass_fields__:
        assert np.array_equal(getattr(whole, name), getattr(later, name)), name
    assert np.all(np.diff(whole.time) >= 0)


def test_seeds_differ():
    process = many_kinds()
    assert not np.array_equal(process.history(0).until(DAY * 30).time[:5], process.history(1).until(DAY * 30).time[:5])


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.5])
def test_components_fail_at_their_rate_whatever_their_shape(shape):
    faults = with_components(Component(name="n", mtbf=50 * DAY, shape=shape))
    process = FaultProcess(faults, USED)
    days = 25
    counts = [len(process.history(seed).until(days * DAY).time) for seed in range(40)]
    expected = USED.nodes * days / 50
    assert process.mtbf == pytest.approx(50 * DAY / USED.nodes)
    assert np.mean(counts) == pytest.approx(expected, abs=4 * np.sqrt(expected / 40) * max(1.0, 1 / shape))


def test_early_failures_come_in_bunches_and_wear_out_in_regular_steps():
    def spread(shape):
        faults = with_components(Component(name="n", per="job", mtbf=DAY, shape=shape))
        times = FaultProcess(faults, USED).history(1).until(3000 * DAY).time
        gaps = np.diff(times)
        return gaps.std() / gaps.mean()

    early, memoryless, wearing = spread(0.6), spread(1.0), spread(2.5)
    assert early == pytest.approx(1.76, rel=0.1)  # of a Weibull law with this shape
    assert memoryless == pytest.approx(1.0, rel=0.1)
    assert wearing == pytest.approx(0.43, rel=0.1)


def test_what_a_job_has_one_of_each_counts():
    parts = ("accelerator", "node", "interface", "supernode", "job", "machine")
    process = FaultProcess(with_components(*(Component(name=per, per=per, mtbf=DAY) for per in parts)), USED)
    assert process.counts == [2048, 512, 1024, 4, 1, 1]


def test_what_a_fault_takes_along():
    takes = {"nothing": 0, "nodes": 4, "supernode": 128, "machine": 512}
    components = (Component(name=each, mtbf=DAY, takes=each, nodes=4) for each in takes)
    assert FaultProcess(with_components(*components), USED).lost.tolist() == [*takes.values()]


def test_lemons_add_their_share_until_they_leave():
    node = Component(name="n", mtbf=100 * DAY)
    lemons = {"lemon_share": 0.05, "lemon_factor": 10.0}
    kept = FaultProcess(with_components(node, **lemons), USED)
    assert kept.lemons == 26
    assert 1 / kept.mtbf == pytest.approx((486 + 260) / (100 * DAY))
    leaving = FaultProcess(with_components(node, **lemons, lemon_after=1), USED)
    days = 200
    counts = [
        np.mean([len(each.history(seed).until(days * DAY).time) for seed in range(20)]) for each in (kept, leaving)
    ]
    assert counts[0] == pytest.approx(746 * days / 100, rel=0.03)
    # after its first fault, some ten days on, each of them fails as others do
    assert counts[1] == pytest.approx(486 * days / 100 + 26 * (1 + (days - 10) / 100), rel=0.03)


def test_tails_have_the_median_one_and_the_mean_that_is_said():
    drawn = log_normal(np.random.default_rng(0), 200_000, 3.0)
    assert np.median(drawn) == pytest.approx(1.0, rel=0.02)
    assert drawn.mean() == pytest.approx(3.0, rel=0.05)


def test_llama3s_rates_give_its_interruptions_back():
    process = FaultProcess(
        read_faults("llama3"), InUse(nodes=2048, accelerators=16384, interfaces=16384, supernodes=64)
    )
    assert 54 * DAY / process.mtbf == pytest.approx(419)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"silent": True, "planned": True}, "exclude each other"),
        ({"slowdown": 2.0, "link_share": 0.5}, "not both"),
    ],
)
def test_a_component_is_one_thing(wrong, told):
    with pytest.raises(ValueError, match=told):
        Component(name="n", mtbf=DAY, **wrong)


def test_rates_that_nobody_has_published_are_refused():
    with pytest.raises(InputError, match="did you mean llama3"):
        read_faults("llama")
