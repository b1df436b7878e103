"""Claims, the fit, plots and reports."""

import csv
import io
import json
import re
import sys

import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.kept_points import Points
from athanor.hardware.machine import Unknowns, load_machine
from athanor.reports.pages.output_folder import Folder
from athanor.reports.pages.reproduction import write_reproduction
from athanor.reports.pages.scaling import write_study
from athanor.reports.plots import runs, scaling
from athanor.reports.plots.draw import as_svg
from athanor.reports.studies.claims import Claim
from athanor.reports.studies.reproductions import reproduce
from athanor.reports.studies.reproductions.bagualu.fit import BaguaLuFit, fit, ratios, with_unknowns, write_machine
from athanor.reports.studies.reproductions.bagualu.parts import free_rows
from athanor.sim.studies.scaling import scale
from support.drawn import drawn_text, read
from support.paths import ROOT
from support.scripts import script

OCEANLIGHT = load_machine("sunway-oceanlight")


@pytest.fixture(scope="module")
def found():
    return reproduce("bagualu")


def claims_of(found, *kinds):
    return {claim.name: claim for claim in found.claims if claim.kind in kinds}


def test_exact_claims_hold(found):
    exact = claims_of(found, "arithmetic")
    assert len(exact) >= 15
    for claim in exact.values():
        assert abs(claim.relative_error) < 2e-3, claim


def test_fitted_claims_are_met(found):
    fitted = claims_of(found, "fitted")
    assert set(fitted) == {
        "moda-1.93t: EFLOPS", "moda-174t: EFLOPS", "speed-up of MoDa's placement", "strong scaling, 6,000 to 96,000 nodes",
    }  # fmt: skip
    for claim in fitted.values():
        assert abs(claim.relative_error) < 0.02, claim


def test_predictions(found):
    predicted = claims_of(found, "predicted")
    assert abs(predicted["moda-14.5t: EFLOPS"].relative_error) < 0.10
    assert predicted["weak-scaling efficiency at 96,000 nodes"].simulated >= 0.9
    for name, claim in predicted.items():
        if "fits" in name:
            assert claim.simulated == claim.target, claim


def test_order_of_the_three_models(found):
    """K11: 1.93T above 14.5T, both far above 174T."""
    rates = [run.summary()["flops_per_second"] for run in found.models.values()]
    assert rates[0] > rates[1] > 3 * rates[2]


def test_free_directions_meet_what_they_were_fitted_to(found):
    assert len(found.free) == 8
    for row in found.free:
        assert row["eflops moda-1.93t"] == pytest.approx(1.18, rel=0.005)
        assert row["placement_speedup"] == pytest.approx(1.6, rel=0.005)
        assert row["strong_speedup"] == pytest.approx(12, rel=0.005)
        if row["varies"] != "message_overhead":
            assert row["eflops moda-174t"] == pytest.approx(0.230, rel=0.005)
    spread = [row["eflops moda-174t"] for row in found.free if row["varies"] == "message_overhead"]
    assert spread == sorted(spread, reverse=True), "the more a message costs, the slower is 174T"


def test_a_claim_of_nothing_has_no_error():
    assert Claim("no", 0, 0, "arithmetic", "").relative_error == 0
    assert Claim("no", 0, 1, "arithmetic", "").relative_error == 1
    assert Claim("half", 2, 1, "arithmetic", "").relative_error == -0.5


def test_the_fit_can_be_redone():
    """From other values the fit comes back to those in the catalogue (three results, at the catalogue's message overhead)."""
    kept = {name: getattr(OCEANLIGHT.calibration, name) for name in Unknowns.model_fields}
    start = Unknowns(**{**kept, "gemm_efficiency": 0.3, "network_efficiency": 0.6, "update_overhead": 4e-11})
    again = fit(OCEANLIGHT, start, message_overhead=kept["message_overhead"])
    for name in ("gemm_efficiency", "network_efficiency", "update_overhead"):
        assert getattr(again.unknowns, name) == pytest.approx(kept[name], rel=1e-3)
    assert max(map(abs, again.errors.values())) < 1e-3


def test_what_the_fit_looks_at():
    """All four results respond to the unknowns, so that the fit has something to hold on to."""
    base = ratios(OCEANLIGHT)
    assert base == pytest.approx([1, 1, 1, 1], rel=0.005)
    kept = Unknowns(**{name: getattr(OCEANLIGHT.calibration, name) for name in Unknowns.model_fields})
    for name in ("gemm_efficiency", "network_efficiency", "update_overhead", "message_overhead"):
        other = with_unknowns(OCEANLIGHT, kept.model_copy(update={name: 0.9 * getattr(kept, name)}))
        assert abs(ratios(other) - base).max() > 0.003, name


def test_a_fit_without_scipy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(InputError, match=r"pip install 'athanor\[fit\]'"):
        fit(OCEANLIGHT, OCEANLIGHT.calibration)


def test_a_machine_file_with_fitted_values(tmp_path):
    unknowns = Unknowns(
        gemm_efficiency=0.25, network_efficiency=0.5, message_overhead=2e-6, update_overhead=3e-11, tokens_per_node=512
    )
    path = tmp_path / "fitted.toml"
    write_machine(path, [("", BaguaLuFit(unknowns, {})), ("tokens_per_node", BaguaLuFit(unknowns, {}))])
    machine = load_machine(path)
    assert machine.calibration.gemm_efficiency == 0.25
    assert len(machine.calibration.free_direction) == 1
    assert machine.fabric == OCEANLIGHT.fabric
    assert machine.unsourced() == []


def test_report_of_the_reproduction(found, tmp_path):
    write_reproduction(Folder(tmp_path), found, "athanor reproduce bagualu --out out")
    names = ("claims", "strong_scaling", "weak_scaling", "breakdown", "placements", "expert_load", "memory")
    for name in names:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    page = read(tmp_path / "report.html")
    text = " ".join(" ".join(page.text).split())
    assert page.links == [], "the report needs no other file and no network"
    assert page.tags.count("svg") == len(names)
    for word in (
        "athanor reproduce bagualu --out out",
        "athanor fit bagualu",
        "predicted",
        "fitted",
        "assumed",
        "48 uplinks",
    ):
        assert word in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "claims.csv").read_text())))
    plain = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [row["name"] for row in rows] == [claim["name"] for claim in plain]
    assert {"name", "target", "simulated", "relative_error", "kind"} <= set(plain[0])


def test_report_of_a_study(tmp_path):
    study = scale("strong", "sunway-oceanlight", "moda-1.93t", [6000, 12000])
    write_study(Folder(tmp_path), study, "athanor scale strong")
    page = read(tmp_path / "report.html")
    assert page.links == []
    assert "athanor scale strong" in " ".join(page.text)
    points = list(csv.DictReader(io.StringIO((tmp_path / "points.csv").read_text())))
    assert [int(row["nodes"]) for row in points] == [6000, 12000]
    assert float(points[1]["speedup"]) == pytest.approx(study.points[1].speedup)


def test_plots_show_what_they_claim(found):
    strong = scaling.strong_scaling(found.strong, 12.0)
    (ideal, simulated, published) = strong.axes[0].get_lines()
    assert list(ideal.get_ydata()) == [1, 2, 4, 8, 16]
    assert list(simulated.get_ydata()) == [point.speedup for point in found.strong.points]
    assert (published.get_xdata()[0], published.get_ydata()[0]) == (96_000, 12)
    for word in ("nodes", "speed-up over 6,000 nodes", "ideal", "simulated", "published (12x)", "moda-1.93t"):
        assert word in drawn_text(strong)
    weak = scaling.weak_scaling(found.weak, 1.18e18)
    assert list(weak.axes[0].get_lines()[1].get_ydata()) == pytest.approx(
        [point.summary["flops_per_second"] / 1e18 for point in found.weak.points]
    )
    assert "EFLOP/s" in drawn_text(weak)
    steps = runs.breakdown({name: run.summary() for name, run in found.models.items()})
    heights = sum(patch.get_height() for patch in steps.axes[0].patches)
    assert heights == pytest.approx(len(found.models), rel=0.01), "shares of each step sum to one"
    memory = runs.memory({"one": found.models["moda-1.93t"].summary()["memory_per_rank_bytes"]})
    total = found.models["moda-1.93t"].summary()["memory_per_rank_bytes"]["total"]
    assert sum(patch.get_height() for patch in memory.axes[0].patches) == pytest.approx(total / 1e9)
    assert "GB" in drawn_text(memory)


def test_the_same_figure_gives_the_same_svg(found):
    once, twice = (as_svg(scaling.strong_scaling(found.strong, 12.0)) for _ in range(2))
    assert once == twice
    assert not re.search(r"<dc:date>", once)


def test_folders_and_points(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Folder(tmp_path / "file" / "out")
    folder = Folder(tmp_path / "a" / "b")
    points = Points(folder.path)
    points.keep("key", {"step_seconds": 1.0})
    points.keep("key", {"step_seconds": 2.0})
    assert Points(folder.path).known == {"key": {"step_seconds": 1.0}}


def test_tables_of_the_documentation_are_what_is_computed(found):
    """Claims in README, and the fit's free direction on its page, made anew."""
    build = script("docs/build.py")
    readme = (ROOT / "README.md").read_text()
    table = build.accuracy([claim.plain() for claim in found.claims])
    assert build.fill(readme, "accuracy", table) == readme, "run make pages"
    page = (ROOT / "docs" / "accuracy.md").read_text()
    assert build.fill(page, "free", build.free_direction(free_rows(found))) == page, "run make pages"
