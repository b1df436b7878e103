"""Predictions beside runs: exact numbers on small runs made by hand, matching of ranks, several pairs, refusals."""

import itertools
import re
import sys
from pathlib import Path

import athanor
import pytest
from athanor import InputError, Run, compare_runs
from athanor.reports.studies.comparison.rows import ComparisonRow, Errors
from athanor.reports.studies.comparison.sides import What
from athanor.workloads.results.trace import COLUMNS
from support.machines import tree
from support.toy_runs import OPERATIONS, RANKS, cli, made, of_ranks, one, pairs_of, saved, times

# --- numbers -------------------------------------------------------------------------------------------------------------


def by_name(rows):
    return {row.name: row for row in rows}


def test_a_run_beside_itself_has_no_errors():
    pair = one(made(), made())
    rows = [pair.step, *pair.phases, *pair.categories, *itertools.chain(*pair.groups.values())]
    rows += [each for row in [*pair.operations, *pair.details] for each in (row.seconds, row.nbytes) if each.measured]
    assert len(rows) == 29
    assert {row.relative_error for row in rows} == {0.0}
    for found in pair.errors.values():
        assert (found.bias, found.mape, found.worst[1]) == (0, 0, 0)


def test_one_phase_predicted_twice_as_long():
    pair = one(made(lambda name, phase, *_: 2.0 if phase == "backward" else 1.0), made(measured=True))
    assert {row.name: row.relative_error for row in pair.phases} == {"forward": 0.0, "backward": 1.0, "update": 0.0}
    assert pair.step.relative_error == pytest.approx(2 / 12)
    assert by_name(pair.categories)["compute"].relative_error == pytest.approx(2 / 6)
    assert {row.name: row.relative_error for row in pair.groups["kinds"]} == {
        "gemm": 0.0, "all-to-all (pairwise-xor)": 0.0, "sweep": 1.0, "all-reduce": 0.0,
    }  # fmt: skip
    assert pair.errors["phases"] == Errors(3, pytest.approx(1 / 3), pytest.approx(1 / 3), ("backward", 1.0))
    assert pair.errors["operations"].mape == pytest.approx(1 / 4), "four operations count the same"
    assert pair.errors["operations_by_time"].mape == pytest.approx(2 / 12), "2 s too much of 12 s"


def test_signs_magnitudes_and_the_worst():
    errors = Errors.of(
        [("a", ComparisonRow("a", 1.5, 1.0)), ("b", ComparisonRow("b", 5.0, 10.0)), ("c", ComparisonRow("c", 1.0, 0.0))]
    )
    assert errors == Errors(2, 0.0, 0.5, ("a", 0.5))
    weighted = Errors.of([("a", ComparisonRow("a", 1.5, 1.0)), ("b", ComparisonRow("b", 5.0, 10.0))], weighted=True)
    assert weighted == Errors(2, pytest.approx(-4.5 / 11), pytest.approx(5.5 / 11), ("b", -0.5))
    assert Errors.of([("c", ComparisonRow("c", 1.0, 0.0))]) == Errors(0, None, None, None)
    assert ComparisonRow("d", 1.0, -1e-7).relative_error is None, (
        "clocks of two hosts may be off by more than an operation takes"
    )


@pytest.mark.parametrize("factor", [0.5, 1.25, 4.0])
def test_a_run_that_takes_longer_by_a_factor_has_that_error_everywhere(factor):
    pair = one(made(), made(times(factor), of_ranks(), steps=2, measured=True))
    rows = [pair.step, *pair.phases, *pair.categories, *itertools.chain(*pair.groups.values())]
    for row in [*rows, *(each.seconds for each in pair.operations)]:
        assert row.relative_error == pytest.approx(1 / factor - 1), row


def test_operations_are_summed_over_layers_and_bytes_with_them():
    pair = one(made(), made(measured=True))
    rows = {row.name: row for row in pair.operations}
    assert list(rows) == ["attention.qkv", "moe.dispatch", "moe.norm.grad", "gradients.dense.all-reduce"]
    assert (rows["attention.qkv"].seconds.measured, rows["attention.qkv"].count) == (4.0, 2)
    assert (rows["moe.dispatch"].seconds.predicted, rows["moe.dispatch"].nbytes.predicted) == (2.0, 400.0)
    assert [row.name for row in pair.details] == [operation[0] for operation in OPERATIONS]
    traffic = {row["name"]: row["measured_bytes"] for row in pair.plain()["traffic"]}
    assert traffic == {"moe.dispatch": 400.0, "gradients.dense.all-reduce": 8.0}
    assert {row.name: row.measured for row in pair.groups["axes"]} == {"ep": 2.0, "ep+dp": 4.0}
    assert {row.name: row.measured for row in pair.groups["levels"]} == {"machine": 6.0}


def test_operations_of_all_layers_and_micro_batches_share_a_name():
    machine = athanor.load_machine("laptop")
    run = athanor.simulate(
        machine, "moda-tiny", mesh={"ep": 2, "dp": 2}, recompute="full", tokens_per_rank=128, micro_batch=1
    )
    for row in run.trace:
        assert What.of(row).short == re.sub(r"\b[lm]\d+\.", "", row.operation)
    names = {What.of(row).short for row in run.trace}
    assert {"moe.dispatch", "again.moe.dispatch", "moe.swipe0.counts", "embedding.lookup"} <= names


def test_the_same_traffic_or_not():
    less = made(measured=True)
    rows = [row._replace(nbytes=row.nbytes / 2) if row.role == "dispatch" else row for row in less.trace]
    pair = one(made(), Run(less.totals, less.plan, less.classes, rows, {}))
    errors = {row["name"]: row["relative_error"] for row in pair.plain()["traffic"]}
    assert errors == {"moe.dispatch": 1.0, "gradients.dense.all-reduce": 0.0}
    assert pair.links == [
        {"kind": "nic.out", "predicted_bytes_per_step": 9.0, "predicted_mean_utilisation": 0.5, "predicted_max_utilisation": 0.75}
        | {"measured_bytes_per_step": 9.0, "measured_mean_utilisation": 0.5, "measured_max_utilisation": 0.75}
    ]  # fmt: skip


def test_half_the_bandwidth_is_twice_the_time_of_exchanges_and_nothing_else():
    options = {"mesh": {"ep": 4, "dp": 2}, "placement": "block:dp,ep", "precision": "O0", "depth": "fluid", "seed": 3}
    options |= {"router": "zipf:1.0", "balancer": "none"}
    whole, half = (athanor.simulate(tree(injection=rate), "moda-tiny", **options) for rate in (1e6, 0.5e6))
    pair = one(half, whole)
    kinds = {row.name: row.relative_error for row in pair.groups["kinds"]}
    assert set(kinds) == {"gemm", "sweep", "all-to-all", "all-to-all (linear)", "reduce-scatter", "all-gather"}
    for kind, error in kinds.items():
        near = (
            1e-9 if kind in ("gemm", "sweep") else 0.01
        )  # groups drift apart by what they compute, which stays as it was
        assert error == pytest.approx(0.0 if kind in ("gemm", "sweep") else 1.0, abs=near), kind
    assert {row.name: pytest.approx(row.relative_error, abs=0.01) for row in pair.groups["levels"]} == {
        "supernode": 1.0,
        "machine": 1.0,
    }


def test_tokens_go_by_the_algorithm_that_was_run():
    run = made()
    rows = [row._replace(algorithm="linear") if row.role == "dispatch" else row for row in run.trace]
    found = by_name(one(Run(run.totals, run.plan, run.classes, rows, {}), made()).groups["kinds"])
    assert "all-to-all (linear)" in found and "all-reduce" in found


def test_variation_of_the_measured_steps():
    slower = {0: 1.0, 1: 1.2, 2: 1.4}
    pair = one(made(), made(lambda name, phase, step, rank: slower[step], steps=3, measured=True))
    for row in [pair.step, *pair.phases, *pair.groups["kinds"], *(each.seconds for each in pair.operations)]:
        assert row.measured == pytest.approx(1.2 * row.predicted)
        assert row.variation == pytest.approx(0.2 / 1.2), "sample standard deviation over the mean"
    assert by_name(pair.categories)["compute"].variation == pytest.approx(0.2 / 1.2)
    assert one(made(steps=3), made(measured=True)).step.variation is None, "one measured step"


def test_phases_and_breakdown_of_each_step_make_up_the_step():
    totals = athanor.simulate("cluster-64", "moda-tiny", jitter=0.1, steps=3).summary()
    for table in (totals["each_step_phases"], totals["each_step_breakdown"]):
        assert [sum(values) for values in zip(*table.values(), strict=True)] == pytest.approx(
            totals["each_step_seconds"]
        )
    for key, values in totals["each_step_breakdown"].items():
        assert sum(values) / 3 == pytest.approx(totals["breakdown"][key])


# --- ranks and steps -----------------------------------------------------------------------------------------------------


def test_ranks_are_matched_by_coordinate():
    """Each rank of the run takes another time; the predicted classes are two of them, under other names."""
    pace = {"rank 0": 1.0, "rank 1": 2.0, "rank 2": 3.0, "rank 3": 4.0}
    predicted = made(times(3.0), {
        "lightest": {"coordinate": {"ep": 0, "dp": 1}, "ranks": 1},
        "heaviest": {"coordinate": {"ep": 1, "dp": 1}, "ranks": 1},
    })  # fmt: skip
    pair = one(predicted, made(lambda name, phase, step, rank: pace[rank], of_ranks(), measured=True))
    assert [(match.predicted, match.measured) for match in pair.matched] == [
        ("lightest", ("rank 1",)),
        ("heaviest", ("rank 3",)),
    ]
    errors = {(row.match.predicted, row.name): row.seconds.relative_error for row in pair.operations}
    assert errors["lightest", "attention.qkv"] == 0.5
    assert errors["heaviest", "moe.dispatch"] == -0.25
    assert by_name(pair.groups["kinds"])["gemm"].measured == 4.0 * (2 + 4) / 2, "the mean over the matched ranks"
    assert [each.ranks for each in pair.timelines] == ["heaviest (ep=1,dp=1)", "rank 3 (ep=1,dp=1)"]
    assert pair.errors["operations"].count == 8
    assert pair.errors["phases"].worst == ("forward", 0.2), "3 s for 2.5 s, the mean over all ranks"
    assert pair.errors["operations"].worst == ("attention.qkv on lightest", 0.5)


def test_all_ranks_alike_are_compared_with_the_mean_over_all():
    pace = {"rank 0": 1.0, "rank 1": 2.0, "rank 2": 3.0, "rank 3": 4.0}
    pair = one(made(times(5.0)), made(lambda name, phase, step, rank: pace[rank], of_ranks(), measured=True))
    assert pair.matched[0].measured == tuple(RANKS)
    assert {row.seconds.relative_error for row in pair.operations} == {1.0}
    assert pair.notes == []
    some = made(lambda name, phase, step, rank: pace[rank], of_ranks(["rank 0", "rank 1"]), measured=True)
    pair = one(made(times(3.0)), some)
    assert {row.seconds.relative_error for row in pair.operations} == {1.0}
    assert pair.notes == ["run of pair observes 2 of 4 ranks; times are means over these"]


def test_classes_at_one_place_count_once_and_those_without_a_counterpart_are_named():
    classes = {name: {"coordinate": RANKS["rank 2"], "ranks": 1} for name in ("median", "heaviest")}
    classes["lightest"] = {"coordinate": RANKS["rank 1"], "ranks": 1}
    pair = one(made(classes=classes), made(classes=of_ranks(["rank 0", "rank 2"]), measured=True))
    assert [match.label for match in pair.matched] == ["heaviest (ep=1,dp=0)"]
    assert pair.notes == ["lightest (ep=0,dp=1) of prediction of pair is not among the ranks of run of pair"]
    with pytest.raises(InputError, match=r"observes none of the ranks of prediction of pair: rank 3 \(ep=1,dp=1\)"):
        one(made(classes=of_ranks(["rank 3"])), made(classes=of_ranks(["rank 0"])))
    pair = one(made(classes=of_ranks(["rank 3"])), made(times(2.0)))
    assert pair.matched[0].measured == ("all",), "a class of all ranks stands for each of them"
    both = {"all": {"coordinate": RANKS["rank 0"], "ranks": 4}, **of_ranks(["rank 3"])}
    pair = one(made(classes=of_ranks(["rank 3"])), made(classes=both))
    assert pair.matched[0].measured == ("rank 3",), "the rank itself rather"


def test_steps_of_the_run_may_be_more_and_fewer():
    fast_then_slow = made(lambda name, phase, step, rank: 1.0 + step, steps=2)
    pair = one(fast_then_slow, made(times(1.5), steps=3, measured=True))
    assert pair.step.relative_error == pytest.approx(0.0)
    assert "2 steps predicted, 3 steps measured: times are means over each" in pair.notes


def test_streams_may_interleave_otherwise():
    """With overlap, rows of different streams stand in the order in which they ended; only that of each stream counts."""
    options = {"mesh": {"ep": 2, "dp": 2}, "overlap": "gradients"}
    predicted = athanor.simulate("cluster-64", "moda-tiny", **options)
    slow = athanor.load_machine("cluster-64").changed({"node.interface_bandwidth": 1e9})
    measured = athanor.simulate(slow, "moda-tiny", jitter=0.3, steps=2, **options)
    orders = [[row.operation for row in run.trace if row.step == 0] for run in (predicted, measured)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    pair = one(predicted, measured)
    assert pair.step.relative_error < 0
    assert pair.matched[0].measured == ("rank 0",)


# --- several pairs -------------------------------------------------------------------------------------------------------


def test_rank_correlation_of_an_ordered_and_a_reversed_set():
    ordered = compare_runs(*pairs_of((1.0, 2.0), (1.1, 5.0), (1.2, 9.0))).plain()["zero_fit"]
    assert ordered["rank_correlation"] == pytest.approx(1.0)
    reverse = compare_runs(*pairs_of((1.2, 2.0), (1.1, 5.0), (1.0, 9.0))).plain()["zero_fit"]
    assert reverse["rank_correlation"] == pytest.approx(-1.0)
    assert ordered["pairs"] == ["pair 1", "pair 2", "pair 3"]
    errors = [1 / 2 - 1, 1.1 / 5 - 1, 1.2 / 9 - 1]
    assert ordered["bias"] == pytest.approx(sum(errors) / 3)
    assert ordered["worst"] == {"name": "pair 3", "relative_error": pytest.approx(errors[2])}
    for undecided in (pairs_of((1.0, 2.0)), pairs_of((1.0, 2.0), (1.0, 3.0)), pairs_of((1.0, 2.0), (3.0, 2.0))):
        assert compare_runs(*undecided).plain()["zero_fit"]["rank_correlation"] is None


def test_zero_fit_and_fitted_are_never_averaged_together():
    runs = pairs_of((2.0, 1.0), (1.0, 2.0), (3.0, 1.0), fitted=[(), ("calibration.gemm_efficiency",), ()])
    plain = compare_runs(*runs).plain()
    assert plain["zero_fit"]["pairs"] == ["pair 1", "pair 3"]
    assert (plain["zero_fit"]["mape"], plain["zero_fit"]["bias"]) == (1.5, 1.5)
    assert plain["fitted"] == {
        "pairs": ["pair 2"], "bias": -0.5, "mape": 0.5, "rank_correlation": None,
        "worst": {"name": "pair 2", "relative_error": -0.5},
    }  # fmt: skip
    assert compare_runs(made(), made()).plain()["fitted"] is None
    assert compare_runs(made(fitted=["a"]), made()).plain()["zero_fit"] is None


def test_several_pairs_without_scipy_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert compare_runs(made(), made()).plain()["zero_fit"]["mape"] == 0
    with pytest.raises(InputError, match=r"pip install 'athanor\[fit\]'"):
        compare_runs(made(), made(), made(), made())


# --- refusals ------------------------------------------------------------------------------------------------------------


def changed(run, plan=None, rows=None, **totals):
    """A run as plain data with other values; None takes a key away."""
    plain = run.to_plain()
    merged = {key: value for key, value in {**plain["summary"], **totals}.items() if value is not None}
    trace = {**plain["trace"], "rows": plain["trace"]["rows"] if rows is None else [list(row) for row in rows]}
    return {**plain, "summary": merged, "plan": {**run.plan, **(plan or {})}, "trace": trace}


def run_of(plain):
    return Run.from_plain(plain, "made")


def with_row(change, at=3):
    """Rows of which that numbered ``at`` has other values in some columns."""
    rows = list(made().trace)
    rows[at] = [change.get(column, value) for column, value in zip(COLUMNS, rows[at], strict=True)]
    return rows


REFUSED = [
    (changed(made(), mesh={"ep": 4, "dp": 1}), "m.json: mesh is ep=4,dp=1, must be ep=2,dp=2 as in"),
    (changed(made(), mesh={"dp": 2, "ep": 2}), "m.json: mesh is dp=2,ep=2, must be ep=2,dp=2 as in"),
    (changed(made(), model="toi"), "m.json: model is toi, must be toy as in"),
    (changed(made(), parameters={"total": 11}), "m.json: parameters is total=11, must be total=10"),
    (changed(made(), placement={"ep": "node"}), "m.json: placement is ep=node, must be moda as in"),
    (changed(made(), nodes=2), "m.json: nodes is 2, must be 4 as in"),
    (changed(made(), tokens_per_rank=128), "m.json: tokens_per_rank is 128, must be 64 as in"),
    (changed(made(), micro_batches=2), "m.json: micro_batches is 2, must be 1 as in"),
    (changed(made(), plan={"all_to_all": "linear"}), "m.json: all_to_all is linear, must be pairwise-xor as in"),
    (changed(made(), rows=made().trace[:-1]), "operation 2 of stream communication in step 0 (all) is missing, must be gradients.dense.all-reduce as in"),
    (changed(made(), rows=[*made().trace, made().trace[0]]), "operation 3 of stream compute in step 0 (all) is l0.attention.qkv, must be missing as in"),
    (changed(made(), rows=with_row({"operation": "l1.moe.combine"})), "operation 1 of stream communication in step 0 (all) is l1.moe.combine, must be l1.moe.dispatch as in"),
    (changed(made(), rows=with_row({"level": "node"})), "m.json: l1.moe.dispatch has level node, must have machine as in"),
    (changed(made(), each_step_seconds=[1.0, 2.0]), "operation 0 of stream compute in step 1 (all) is missing"),
    (changed(made(), rows=[]), "m.json: its trace has no rows"),
    (changed(made(), rows=with_row({"step": 5})), "m.json: row 3 of the trace is of step 5, must be of one of the 1"),
    (changed(made(), rows=with_row({"class": "al"})), 'm.json: row 3 of the trace is of class "al", which is not in classes (all)'),
    (changed(made(), rows=with_row({"end": None})), "m.json: row 3 of the trace has end None, must be a number"),
    (changed(made(), rows=with_row({"start": float("nan")})), "m.json: row 3 of the trace has start nan, must be a number"),
    (changed(made(), rows=with_row({"step": 0.0})), "m.json: row 3 of the trace has step 0.0, must be a whole number"),
    (changed(made(), rows=with_row({"operation": ["l0"]})), "m.json: row 3 of the trace has operation ['l0'], must be a text"),
    (changed(made(), rows=with_row({"category": "al_to_all"})), "no such category (compute, all_to_all"),
    (changed(made(), rows=with_row({"category": "al_to_all"})), "did you mean all_to_all?"),
    ({**made().to_plain(), "plan": []}, "m.json: plan must be a table of options"),
    (changed(made(), rows=[made().trace[0][:-1]]), "m.json: row 0 of the trace has 22 columns, must have 23"),
    ({**made().to_plain(), "format": "athanor-run/1"}, "m.json: format is 'athanor-run/1', must be \"athanor-run/2\"; an older"),
    (changed(made(), flops=1.0), "m.json: summary.flops is an unknown key"),
    (changed(made(), each_step_phases=None), "m.json: summary.each_step_phases is missing"),
    (changed(made(), fitted_constants=None), "m.json: summary.fitted_constants is missing"),
    (changed(made(), step_seconds=0.0), "m.json: summary.step_seconds is 0.0: input should be greater than 0"),
    (changed(made(), step_seconds="slow"), 'm.json: summary.step_seconds is "slow": input should be a valid number'),
    ({**made().to_plain(), "classes": {"all": {"ranks": 4}}}, "m.json: classes.all.coordinate: field required"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_of_the_same_plan_or_cannot_be_read_is_refused_in_one_line(
    run, message, tmp_path, monkeypatch, capsys
):
    files = saved(tmp_path, p=made(), m=run)
    status, out, error = cli(monkeypatch, capsys, "compare", *files, "--json", "-")
    assert (status, out) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1


def test_files_that_are_no_runs_or_are_too_many_are_refused(tmp_path, monkeypatch, capsys):
    p, m = saved(tmp_path, p=made(), m=made(measured=True))
    cut = tmp_path / "cut.json"
    cut.write_text(Path(m).read_text()[:-200])
    for files, message in (
        ([p, cut], "cut.json: no run can be read from it"),
        ([p, tmp_path / "no.json"], "no.json: no such file"),
        ([p], "compare: 1 files; give predicted and measured in turn"),
        ([p, m, p], "compare: 3 files; give predicted and measured in turn"),
        ([m, p], "m.json: was measured and"),
        ([p, m, "--json", "/proc/nowhere/c.json"], "/proc/nowhere/c.json: cannot be written"),
        ([p, m, "--out", "/proc/nowhere"], "--out /proc/nowhere: cannot be written"),
        ([], "PREDICTED"),
    ):
        before = sorted(tmp_path.iterdir())
        status, out, error = cli(monkeypatch, capsys, "compare", *files)
        assert (status, out) == (2, ""), files
        assert message in error
        assert len(error.splitlines()) == 1
        assert sorted(tmp_path.iterdir()) == before


def test_an_odd_number_of_files_leaves_no_folder(tmp_path, monkeypatch, capsys):
    (p,) = saved(tmp_path, p=made())
    assert cli(monkeypatch, capsys, "compare", p, "--out", tmp_path / "out")[0] == 2
    assert not (tmp_path / "out").exists()


def test_what_may_differ_is_noted():
    other = run_of(changed(made(measured=True, machine="rig"), plan={"router": "zipf:1.0", "seed": 4, "top_k": None}))
    assert one(made(), other).notes == [
        "predicted for bench, measured on rig",
        "top_k is 2 in prediction of pair and the model's own in run of pair",
        "router is uniform in prediction of pair and zipf:1.0 in run of pair",
        "seed is 0 in prediction of pair and 4 in run of pair",
    ]
    warned = run_of(changed(made(measured=True), warnings=["4 ranks share 2 cores"]))
    assert one(made(), warned).notes == ["run of pair: 4 ranks share 2 cores"]
    assert one(made(), made()).notes == ["run of pair was simulated, not measured: this compares two predictions"]
    assert one(made(measured=True), made(measured=True)).notes == [
        "prediction of pair was measured as well: this compares two runs"
    ]
