"""What was published, as data: every figure has a source, and figures that follow from each other agree."""

import pytest
from athanor.reports.published import FOLDER, published
from athanor.reports.published.read_runs import published_runs
from athanor.workloads.model.model import load_model

TABLES = sorted(path.stem for path in FOLDER.glob("*.toml"))
NEW = [name for name in TABLES if name != "bagualu"]


@pytest.mark.parametrize("name", NEW)
def test_every_fact_has_a_source(name):
    table = published(name)
    assert table["name"] == name
    assert set(table["facts"]) | ({"parameters"} & set(table)) <= set(table["sources"])
    known = set(published_runs())
    assert {row for rows in table.get("measured", {}).values() for row in rows} <= known


@pytest.mark.parametrize("name", [name for name in NEW if "parameters" in published(name)])
def test_parameters_are_those_of_the_models(name):
    for model, parameters in published(name)["parameters"].items():
        assert load_model(model).published_parameters == pytest.approx(parameters, rel=0.005)


def test_arithmetic_of_the_facts():
    pangu, m6, zero = (published(name)["facts"] for name in ("pangu", "m6", "zero"))
    for ways, ranks in pangu["ranks"].items():
        assert int(ways) * pangu["operator_ways"] * pangu["stages"] == ranks
    a_rank = pangu["parameters_of_a_rank"]
    for ways, gigabytes in pangu["gigabytes_of_a_rank"].items():
        assert a_rank * (4 + 12 / int(ways)) / 1e9 == pytest.approx(gigabytes, rel=0.01)
    for model, nbytes in m6["bytes_a_parameter"].items():
        cards = m6["accelerators"][model] * 32e9
        assert cards / published("m6")["parameters"][model] == pytest.approx(nbytes, rel=0.005)
    for stage, gigabytes in zero["gigabytes"].items():
        sharded = {"0": 0, "1": 12, "2": 14, "3": 16}[stage]
        nbytes = 16 - sharded + sharded / zero["ranks"]
        assert nbytes * zero["parameters"] / 1e9 == pytest.approx(gigabytes, rel=0.02)
    assert sum(zero["terabytes_1t_fp32"].values()) * 1e12 / 32e9 == zero["v100_for_1t"]["decimal"]
