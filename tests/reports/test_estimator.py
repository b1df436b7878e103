"""Fits are estimators: on made-up answers whose constants are known, without a simulator."""

import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.reports.published.read_runs import published_runs
from athanor.reports.studies.accuracy.estimator import estimate, weights_of
from athanor.reports.studies.accuracy.fitting import fit
from athanor.reports.studies.accuracy.intervals import Score, covered, interval_of
from athanor.reports.studies.accuracy.refit import refit
from athanor.reports.studies.accuracy.responses import Responses
from athanor.reports.studies.accuracy.targets import ACCELERATOR, FittedConstant, settings, target_of
from support.scripts import script

RUN = published_runs()["kort_22B_full"]
GEMM, MEMORY, EIGHT = ACCELERATOR
START = {GEMM: 0.7, MEMORY: 0.7, EIGHT: 0.9}


def runs(*publications):
    return [RUN.model_copy(update={"id": f"r{at}", "publication": name}) for at, name in enumerate(publications)]


class Made:
    """Answers of runs that compute, move bytes and wait: the longer of two streams, and some time beside."""

    def __init__(self, names, true, off=None, seed=1):
        rng = np.random.default_rng(seed)
        self.work = {name: rng.uniform(0.1, 1.0, 4) for name in names}
        self.true, self.off, self.asked = true, off or {}, 0

    def seconds(self, name, values):
        compute, nbytes, other, beside = self.work[name]
        gemm, memory = (values.get(each.keys[0], self.true[each]) for each in (GEMM, MEMORY))
        return max(compute / gemm + nbytes / memory, other / memory) + 0.1 * beside

    def __call__(self, work):
        self.asked += len(work)
        return [
            (self.seconds(run.id, values), self.seconds(run.id, settings(self.true)) * self.off.get(run.id, 1.0), None)
            for run, values in work
        ]


def of(publications, true, off=None, parameters=ACCELERATOR):
    mine = runs(*publications)
    ask = Made([run.id for run in mine], true, off)
    return Responses(mine, parameters, ask), ask


TRUE = {GEMM: 0.55, MEMORY: 0.8, EIGHT: 0.9}


def test_every_start_leads_to_the_constants_that_answers_were_made_with():
    responses, ask = of("abcdefgh", TRUE)
    found = estimate(responses, START)
    assert found.same and len(found.solutions) == 3
    assert len({each.start for each in found.solutions}) == 3
    assert found.values[GEMM] == pytest.approx(0.55, rel=2e-3) and found.values[MEMORY] == pytest.approx(0.8, rel=2e-3)
    assert ask.asked < 8 * 25, "planes stand for most of what starts would ask"


def test_what_no_run_tells_keeps_its_value_and_has_no_error():
    responses, _ = of("abcdefgh", TRUE)
    found = estimate(responses, START)
    assert found.untold == (EIGHT,) and found.values[EIGHT] == START[EIGHT]
    assert set(found.standard_errors) == {GEMM, MEMORY} == set(found.free)


def test_what_is_told_badly_is_not_told():
    """Bytes that no run depends on by more than a little, in answers that stray."""
    rng = np.random.default_rng(3)
    responses, ask = of("abcdefgh", TRUE, {f"r{at}": float(np.exp(rng.normal(0, 0.2))) for at in range(8)})
    for work in ask.work.values():
        work[1:3] = 0.005
    found = estimate(responses, START)
    assert MEMORY not in found.free and MEMORY not in found.standard_errors


def test_constants_at_a_bound_are_said_so_and_have_no_error():
    """Answers of a memory slower than any accelerator's."""
    responses, ask = of("abcdefgh", {**TRUE, MEMORY: 0.15})
    for work in ask.work.values():
        work[1:3] = 0.05, 0.0
    found = estimate(responses, START)
    assert found.bounds == {MEMORY: "lower"} and found.values[MEMORY] == MEMORY.low
    assert MEMORY not in found.standard_errors and GEMM in found.standard_errors


def test_starts_on_a_plateau_come_back():
    """Beyond some rate runs are bound by memory, and slopes by products are none."""
    responses, ask = of("abcdefgh", {GEMM: 0.3, MEMORY: 0.9}, parameters=(GEMM,))
    for work in ask.work.values():
        work[:] = 0.2, 0.0, 0.3, 0.1
    found = estimate(responses, START, starts=(0.0, 0.3, -0.8))
    assert found.values[GEMM] == pytest.approx(0.3, rel=2e-3) and found.spread < 0.01


def test_runs_of_one_publication_count_less_than_as_many_others():
    assert weights_of(runs(*"aaaa")) == pytest.approx([1 / 1.75] * 4)
    assert weights_of(runs(*"abcd")) == pytest.approx([1.0] * 4)
    own, _ = of("abcdefgh", TRUE, {f"r{at}": 1.0 + 0.1 * (at % 2) for at in range(8)})
    one, _ = of("aaaaaaaa", TRUE, {f"r{at}": 1.0 + 0.1 * (at % 2) for at in range(8)})
    apart, together = (estimate(each, START).standard_errors[GEMM] for each in (own, one))
    assert together > 1.5 * apart


def test_one_publication_cannot_bend_the_others_without_limit():
    """Off by 40 % or by 400 %, it pulls alike; and the six that agree are met within 10 %."""
    found = []
    for off in (1.4, 4.0):
        responses, _ = of("abcdefggg", TRUE, {f"r{at}": off for at in (6, 7, 8)})
        each = estimate(responses, START)
        found.append(each.values[GEMM])
        assert np.abs(each.errors[:6]).max() < 0.1
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_planes_lie_on_what_was_simulated_and_below_it_elsewhere():
    responses, ask = of("abcd", TRUE)
    points = [np.array([gemm, memory, 0.9]) for gemm, memory in ((0.5, 0.6), (0.7, 0.9), (0.9, 0.55))]
    for point in points:
        responses.look(point)
    for point in points:
        values = settings(dict(zip(ACCELERATOR, point, strict=True)))
        real = [predicted / measured for predicted, measured, _ in ask([(run, values) for run in responses.runs])]
        assert responses.ratios(point)[0] == pytest.approx(real, rel=2e-3)
    asked = ask.asked
    assert responses.look(points[0] * 1.0001) == 0.0 and ask.asked == asked
    between = np.array([0.6, 0.7, 0.9])
    values = settings(dict(zip(ACCELERATOR, between, strict=True)))
    real = np.array([p / m for p, m, _ in ask([(run, values) for run in responses.runs])])
    assert (responses.ratios(between)[0] <= real * 1.002).all()


# --- fits -------------------------------------------------------------------------------------------------------------


def test_a_publication_is_judged_by_constants_that_have_not_seen_it():
    """Of two that differ by 20 %, each is off by that under the other's constants; and none stands on both sides."""
    mine = [run.model_copy(update={"fitted": True}) for run in runs(*"aaaabbbb")]
    used = target_of("accelerator", "A100").start
    ask = Made([run.id for run in mine], used, {f"r{at}": 1.2 for at in range(4, 8)})
    for work in ask.work.values():
        work[1:] = 0.0
    found = fit(target_of("accelerator", "A100"), mine, ask=ask)
    assert [group.name for group in found.left_out] == ["a", "b"]
    assert all(
        set(group.errors) == {f"r{4 * at + each}" for each in range(4)} for at, group in enumerate(found.left_out)
    )
    assert found.left_out_errors["r0"] == pytest.approx(0.2, abs=0.005)
    assert found.left_out_errors["r4"] == pytest.approx(1 / 1.2 - 1, abs=0.005)
    plain = found.plain()
    assert plain["errors"]["leave_one_publication_out"]["rows"] == 8 and plain["errors"]["held_out"]["rows"] == 0
    assert plain["parameters"] == 1 and set(plain["not_told"]) == set(MEMORY.keys)


def test_of_a_single_publication_models_are_left_out():
    mine = [run.model_copy(update={"fitted": True, "model": f"m{at % 2}"}) for at, run in enumerate(runs(*"aaaa"))]
    found = fit(target_of("accelerator", "A100"), mine, ask=Made([run.id for run in mine], TRUE))
    assert found.by == "model" and [group.name for group in found.left_out] == ["m0", "m1"]


def test_a_refit_carries_values_on_and_leaves_a_publication_out_of_all_fits():
    """Of one fit and no library; what a run sets of its machine it keeps."""
    mine = [run.model_copy(update={"fitted": True}) for run in runs(*"aabbccdd")]
    used = settings(target_of("accelerator", "A100").start)
    true = {GEMM: 0.9 * used[GEMM.keys[0]], MEMORY: used[MEMORY.keys[0]], EIGHT: 1.0}
    found = refit(
        mine, targets=(("accelerator", "A100"), ("fabric", "fugaku")), ask=Made([run.id for run in mine], true)
    )
    assert [each.target.name for each in found.fits] == ["A100"], "there is no run about the other"
    moved = {key: value / before for _, key, before, value, _ in found.moved}
    assert moved[GEMM.keys[0]] == pytest.approx(0.9, rel=5e-3)
    assert set(found.unseen) == {run.id for run in mine} and max(map(abs, found.unseen.values())) < 0.01
    assert found.by_publication()["a"]["rows"] == 2 and found.judged()["A100, dense"]["rows"] == 8
    assert found.plain()["leave_one_publication_out"]["all"]["mape"] < 0.01


# --- intervals --------------------------------------------------------------------------------------------------------


def scores(count, spread=0.1, publications=None, seed=1, **kind):
    """Scores of many publications."""
    rng = np.random.default_rng(seed)
    shown = {"accelerator": "A100", "plan": "dense", **kind}
    return [
        Score(f"{seed}.{at}", f"p{at % (publications or count)}", score=float(value), **shown)
        for at, value in enumerate(rng.normal(0.0, spread, count))
    ]


def test_intervals_cover_nine_of_ten_of_new_ones():
    shares = []
    for seed in range(20):
        low, high = interval_of(scores(100, seed=seed), "A100", "dense")
        shares.append(np.mean([low <= np.exp(each.score) <= high for each in scores(500, seed=100 + seed)]))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)
    assert 0.85 < np.mean(list(covered(scores(300, publications=30)).values())) < 0.95


def test_few_scores_make_no_interval_and_take_those_of_more_kinds():
    few, many = scores(6, 0.01, seed=3), scores(100, 0.3, accelerator="H100", seed=4)
    assert interval_of(few, "A100", "dense") is None
    assert interval_of([*few, *many], "A100", "dense") == interval_of([*few, *many], "B200", "dense")
    assert interval_of([*few, *many], "A100", "experts") is not None
    wide, narrow = interval_of(many, "H100", "dense"), interval_of(scores(100, 0.05, seed=4), "A100", "dense")
    assert wide[1] / wide[0] > narrow[1] / narrow[0]


def test_many_runs_of_one_publication_make_no_interval_by_themselves():
    assert interval_of(scores(60, publications=1), "A100", "dense") is None


def test_models_with_experts_have_their_own_interval():
    machine = load_machine("selene").changed({"interval.low": 0.9, "interval.high": 1.1})
    table = machine.model_dump()
    table["interval"]["experts"] = {"low": 0.7, "high": 1.3}
    both = type(machine).model_validate(table).interval
    table["interval"]["experts"] = None
    one = type(machine).model_validate(table).interval
    assert (both.of(0).low, both.of(8).low, one.of(8).low) == (0.9, 0.7, 0.9)


def test_parameters_hold_values_within_their_bounds():
    assert FittedConstant(("x",), 0.2, 1.0).inside(3.0) == 1.0 and FittedConstant(("x",), 0.2, 1.0).inside(0.1) == 0.2


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_values_go_into_files_of_machines_and_nothing_else_changes(tmp_path):
    """Shares in percent, rates in GB/s, plain numbers, entries of tables in a line; and intervals by kind of plan."""
    from athanor.hardware.machine import CATALOGUE

    constants = script("benchmarks/constants.py")
    values = {
        "calibration.gemm_efficiency": 0.4321,
        "core_group.dma_read": 0.456,
        "core_group.dma_write": 0.456,
        "core_group.tiles.precisions.fp8": 0.75,
        "node.ring_bandwidth": 321e9,
    }
    text = before = (CATALOGUE / "eos-h100.toml").read_text()
    for key, value in values.items():
        text = constants.with_source(constants.with_value(text, key, value), key, f"fitted: {key}")
    text = constants.with_interval(text, {"dense": (0.9, 1.1), "experts": (0.7, 1.4)}, "fitted: both")
    (tmp_path / "eos-h100.toml").write_text(text)
    found, old = load_machine(tmp_path / "eos-h100.toml"), load_machine("eos-h100")
    assert found.model_copy(update={"sources": {}, "interval": None}) == old.changed(values).model_copy(
        update={"sources": {}, "interval": None}
    )
    assert (found.interval.of(0).low, found.interval.of(8).high) == (0.9, 1.4)
    assert found.sources == {**old.sources, **{key: f"fitted: {key}" for key in values}, "interval": "fitted: both"}
    assert constants.with_interval(text, {"dense": (0.9, 1.1), "experts": (0.7, 1.4)}, "fitted: both") == text
    assert len(set(text.splitlines()) - set(before.splitlines())) <= len(values) * 2 + 8
