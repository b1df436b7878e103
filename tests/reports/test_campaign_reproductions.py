"""``reproduce resilience`` and ``energy``: claims that cost little, each beside what was published."""

import pytest
from athanor.reports.published import published
from athanor.reports.studies.reproductions import energy, resilience
from athanor.reports.studies.reproductions.facts import Facts
from athanor.sim.campaign.campaign import campaign


@pytest.fixture(scope="module")
def claims():
    facts = Facts("resilience")
    parts = (resilience._meta, resilience._megascale, resilience._byterobust, resilience._torchft)
    return [claim for part in parts for claim in part(facts)]


def test_rates_and_times_between_faults_are_those_of_the_clusters(claims):
    near = [each for each in claims if each.kind in ("fitted", "arithmetic") and not each.yes_or_no]
    assert len(near) >= 6
    for each in near:
        assert abs(each.relative_error) < 0.02, each.name


def test_what_was_calibrated_on_one_row_predicts_the_others_within_a_tenth(claims):
    predicted = [
        each for each in claims if each.name.startswith(("ByteRobust", "torchft")) and each.kind == "predicted"
    ]
    assert len(predicted) == 3
    for each in predicted:
        assert abs(each.relative_error) < 0.1, each.name


def test_a_jobs_own_faults_break_the_law_of_one_over_n(claims):
    (measured,) = (each for each in claims if each.kind == "contradiction")
    assert measured.relative_error > 2
    (with_own,) = (each for each in claims if "own faults every" in each.name)
    assert -0.2 < with_own.relative_error < 0


def test_goodput_of_ninety_percent_where_it_was_reported(claims):
    reached = [each for each in claims if each.name.startswith("MegaScale")]
    assert [each.simulated for each in reached] == [True, True]


def test_blooms_training_takes_as_long_as_it_took():
    facts = Facts("resilience")
    by_name = {each.name: each for each in resilience._bloom(facts)}
    assert abs(by_name["BLOOM: days of the training"].relative_error) < 0.1
    assert abs(by_name["BLOOM: share of the time that is productive"].relative_error) < 0.02
    assert abs(by_name["BLOOM: TB of a checkpoint"].relative_error) < 0.01


def test_llama3s_count_lies_within_its_poisson_interval():
    counts = sorted(
        resilience._count(
            resilience.FaultProcess(resilience.read_faults("llama3"), resilience._gpus(16384)), 54 * 86400.0
        )
    )
    assert counts[2] <= 419 <= counts[97]


def test_machines_draw_what_the_list_says_and_caps_what_was_measured():
    claims = [*energy._machines(Facts("energy")), *energy._cap(Facts("energy"))]
    for each in claims:
        if each.kind == "fitted":
            assert abs(each.relative_error) < 0.05, each.name
    assert -0.2 < claims[-1].simulated < -0.05


def test_m6_takes_less_than_a_hundredth_of_gpt3s_energy_at_one_trillion_only():
    run = campaign("azure-gpt3", "gpt3-175b", train_steps=100, zero="1", seeds=1)
    small, large = energy._m6(Facts("energy"), run)
    assert small.simulated is small.target is True
    assert large.simulated is large.target is False


@pytest.mark.parametrize("name", ["resilience", "energy"])
def test_every_fact_has_a_source(name):
    table = published(name)
    assert set(table["facts"]) == set(table["sources"])
