"""Reproductions of published systems: claims hold, contradictions show, and everything is computed from machine and model."""

import json
from functools import lru_cache

import numpy as np
import pytest
from athanor.cli import cli
from athanor.hardware.machine import load_machine
from athanor.reports.pages.output_folder import Folder
from athanor.reports.pages.reproduction import write_reproduction
from athanor.reports.plots.draw import as_svg, draw
from athanor.reports.published.read_runs import published_runs
from athanor.reports.studies.claims import Claim
from athanor.reports.studies.reproductions import NAMES, megatron, pangu, reproduce, tensor2d
from athanor.reports.studies.reproductions.desk import Desk
from athanor.reports.studies.reproductions.facts import Facts
from athanor.reports.studies.reproductions.quantities import sent, training_flops
from athanor.workloads.lowering import lower
from athanor.workloads.model.model import load_model
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

NEW = [
    name for name in NAMES if name not in ("bagualu", "convergence", "precision", "resilience", "energy")
]  # which have tests of their own

ROUNDED = {
    "pangu": {"parameters": 0.025, "GiB": 0.03, "13 B: GB": 0.025},
    "m6": {"parameters": 0.025, "GB of experts": 0.035, "over those of 1 T": 0.015},
    "megatron": {"dollars": 0.02},
    "zero": {"stage 3": 0.02, "GB a rank": 0.005, "node sends": 0.005},
}
"""Exact claims whose targets are printed with few digits, or count what the source leaves out: how far they may be off."""

CONTRADICTIONS = {
    "pangu": {"processors of the text's eight data-parallel ways, against the 2,048 that it names": -0.5},
    "m6": {
        "the same with what every GPU has": 0.206,
        "V100-32G for 1 T at 16 B a parameter, against the 480 used": 0.042,
        "the same at 24 B, as BaGuaLu's authors count (768 in mixed units)": 0.5625,
    },
    "cpm2": {"cpm-2: parameters, as the overview's table prints them": -0.155},
}
"""Claims of the sources that contradict others of theirs, and by how much."""

PREDICTED = {
    "megatron": {"TFLOP/s a GPU": 0.35, "seconds a step": 0.2},
    "pangu": {"tokens/s each": 0.5, "best of six": 1e-9},
    "zero": {"2,048 tokens: ZeRO++ over ZeRO-3": 0.35, "1,024 tokens: ZeRO++ over ZeRO-3": 0.45},
    "m6": {"seconds computed": 0.1, "seconds exchanged": 1e-3},
    "cpm2": {"with prefetch": 0.02},
    "tensor2d": {"of the whole": 1e-3, "sequences/s": 0.1},
}
"""How far predicted and fitted numbers may be off, by what their names contain; others, of which too little was published, are not held."""


@lru_cache
def found(name):
    return reproduce(name)


def claims_of(name, kind):
    return {claim.name: claim for claim in found(name).claims if claim.kind == kind}


@pytest.mark.parametrize("name", NEW)
def test_arithmetic_claims_hold_and_contradictions_show(name):
    against = CONTRADICTIONS.get(name, {})
    contradictions = claims_of(name, "contradiction")
    assert set(contradictions) == set(against)
    for claim in contradictions.values():
        assert claim.relative_error == pytest.approx(against[claim.name], abs=0.01)
    for claim in claims_of(name, "arithmetic").values():
        allowed = next((most for text, most in ROUNDED.get(name, {}).items() if text in claim.name), 4e-3)
        assert abs(claim.relative_error) <= allowed, claim


@pytest.mark.parametrize("name", NEW)
def test_predicted_truths_hold(name):
    truths = {each.name: each for each in claims_of(name, "predicted").values() if each.yes_or_no}
    assert not {each.name for each in truths.values() if each.simulated != each.target}


@pytest.mark.parametrize("name", list(PREDICTED))
def test_predicted_numbers_are_near(name):
    for text, most in PREDICTED[name].items():
        both = {**claims_of(name, "predicted"), **claims_of(name, "fitted")}
        near = [claim for claim in both.values() if text in claim.name]
        assert near, text
        for claim in near:
            assert abs(claim.relative_error) <= most, claim


@pytest.mark.parametrize("name", NEW)
def test_only_measured_rows_are_fitted_and_every_claim_has_a_source(name):
    """Constants of GPUs were fitted to half of the published rows about them: what is claimed of these is no prediction."""
    reproduction = found(name)
    fitted = [claim for claim in reproduction.claims if claim.kind == "fitted"]
    assert bool(fitted) == (name in ("megatron", "zero"))
    if name == "megatron":
        assert {claim.target for claim in fitted} <= {run.value for run in published_runs().values() if run.fitted}
    assert all(claim.source for claim in reproduction.claims)
    names = [claim.name for claim in reproduction.claims]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", NEW)
def test_json_has_the_form_of_the_first(name):
    plain = json.loads(json.dumps(found(name).plain()))
    assert plain["name"] == name
    load_machine(plain["machine"])
    for claim in plain["claims"]:
        assert set(claim) == {"name", "target", "simulated", "kind", "source", "relative_error"}


@pytest.mark.parametrize("name", NEW)
def test_figures_are_drawn_and_say_what_they_show(name):
    drawings = [each for part in found(name).parts for each in part.drawings]
    assert drawings
    assert len({each.name for each in drawings}) == len(drawings)
    for each in drawings:
        figure = draw(each.content)
        (axes,) = figure.axes
        assert axes.get_title(loc="left")
        assert axes.get_ylabel()
        assert each.caption
        assert "<svg" in as_svg(figure)


def test_the_report_has_all_claims(tmp_path):
    write_reproduction(Folder(tmp_path), found("cpm2"), "athanor reproduce cpm2 --out out")
    page = (tmp_path / "report.html").read_text()
    for claim in found("cpm2").claims:
        assert claim.name.replace("'", "&#39;") in page
    for text in ("athanor reproduce cpm2 --out out", "infmoe", "cpm-2-moe", "predicted"):
        assert text in page
    written = {path.name for path in tmp_path.iterdir()}
    figures = {f"{name}.{kind}" for name in ("claims", "memory", "streaming") for kind in ("svg", "png")}
    assert written == figures | {"claims.json", "claims.csv", "report.html"}


def test_the_command_prints_json_alone_and_knows_its_names(monkeypatch):
    """Of what other tests have computed already."""
    known, told = found("tensor2d"), []
    monkeypatch.setattr(tensor2d, "build", lambda desk: desk.progress("all of it") or told.append(desk) or known)
    done = CliRunner().invoke(cli, ["reproduce", "tensor2d", "--json", "-"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(known.plain()))
    assert len(told) == 1
    wrong = CliRunner().invoke(cli, ["reproduce", "pangu2"])
    assert wrong.exit_code == 2
    assert all(name in wrong.output for name in NAMES)


def test_published_orders_are_kept():
    """Of measured rows: more GPUs for the same batch are each slower, selective recomputation is faster than full, larger is slower."""
    rows = {claim.name: claim for claim in found("megatron").claims}
    strong = [claim for name, claim in rows.items() if name.startswith("gpt3-175b on")]
    for values in ([each.target for each in strong], [each.simulated for each in strong]):
        assert values == sorted(values, reverse=True)
    for model in ("gpt-22b", "GPT 175B", "megatron-529.6b", "gpt-1t"):
        full, selective = (rows[f"{model}, {again} recomputation: seconds a step"] for again in ("full", "selective"))
        assert selective.simulated < full.simulated
        assert selective.simulated / full.simulated == pytest.approx(selective.target / full.target, rel=0.05)
    alone = [claim for claim in found("zero").claims if "by ZeRO-3" in claim.name]
    assert [each.simulated for each in alone] == sorted((each.simulated for each in alone), reverse=True)


def test_what_fits_follows_from_the_machine():
    """On processors of 8 GB nothing of PanGu fits, with the same code."""
    small = load_machine("cloud-brain-2").changed({"core_group.memory": 8e9})
    truths = [claim for claim in pangu._memory(Facts("pangu"), small) if "fit 32 GB" in claim.name]
    assert truths
    assert all(claim.simulated == 0 for claim in truths)


def test_rates_follow_from_the_machine():
    """Products at half the efficiency make the steps of recomputation longer, by less than twice."""
    slow = load_machine("selene").changed({"calibration.gemm_efficiency": 0.45})
    facts = Facts("megatron")
    facts.table = {**facts.table, "measured": {"recomputation": ["kort_22B_full"]}}
    (longer,) = megatron._times(facts, slow, Desk())
    usual = next(claim for claim in found("megatron").claims if claim.name == longer.name)
    assert 1.3 < longer.simulated / usual.simulated < 2


@given(st.integers(1, 12), st.integers(1, 12))
def test_resharding_moves_what_is_not_at_hand(before, after):
    moved = pangu.resharded(before, after)
    assert moved.shape == (before, after)
    assert (moved >= 0).all()
    kept = np.array(
        [
            max(0.0, min((i + 1) / before, (i + 1) / after) - max(i / before, i / after))
            for i in range(min(before, after))
        ]
    )
    assert moved.sum() + kept.sum() == pytest.approx(1)
    assert moved.sum(axis=0)[: len(kept)] + kept == pytest.approx(np.full(len(kept), 1 / after))
    if before == after:
        assert moved.sum() == pytest.approx(0)


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 3))
def test_bubbles_of_orders(stages, rounds, chunks):
    pipeline = "interleaved" if chunks > 1 else "1f1b"
    micro_batches = stages * rounds
    share = megatron.bubble_share(pipeline, stages, micro_batches, chunks)
    assert share == pytest.approx((stages - 1) / (chunks * micro_batches), abs=1e-9)


def test_flops_as_the_papers_count_them():
    """A third more with recomputation, but for the output layer; and the published step of 145.6 B gives its published rate."""
    model = load_model("megatron-145.6b")
    with_, without = (training_flops(model, 2304, again) for again in (True, False))
    assert with_ / without == pytest.approx(4 / 3, rel=0.005)
    assert with_ / 1536 / 148e12 == pytest.approx(24.8, rel=0.01)


def test_what_ranks_send_in_the_mean():
    """Two times (n - 1)/n of the gradients for an all-reduce of them."""
    model = load_model("gpt3-6.7b")
    schedule = lower("dgx2-v100", model, mesh={"dp": 4}, zero="0", global_batch=4, micro_batch=1, precision="O2")
    assert sent(schedule) == pytest.approx(2 * 3 / 4 * 2 * model.parameters.total)


def test_facts_resolve_sources_and_refuse_others():
    facts = Facts("zero")
    assert facts.source("ranks") == facts.source("parameters") == "ZeRO, figure 1"
    with pytest.raises(KeyError):
        facts.source("no such")
    assert facts.claim("gigabytes", "x", 16.6, at=2) == Claim("x", 16.6, 16.6, "arithmetic", "ZeRO, figure 1")
