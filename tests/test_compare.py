"""Predictions beside runs: exact numbers on small runs made by hand, matching of ranks, refusals, and what is written."""

import csv
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import athanor
import pytest
from athanor import InputError, Run, compare_runs
from athanor.cli import main
from athanor.reports import compare, comparison_plots
from athanor.reports.compare import Comparison, Errors, Row
from athanor.reports.comparison_report import write_comparison
from athanor.reports.output import Folder
from athanor.reports.timeline import Bar, Timeline
from athanor.workloads.run import COLUMNS
from athanor.workloads.schedule import CATEGORIES
from machines import tree
from test_reports import drawn_text, read

OPERATIONS = [  # name, kind, phase, category, stream, collective, axes, seconds, bytes
    ("l0.attention.qkv", "gemm", "forward", "compute", "compute", "", "", 1.0, 0.0),
    ("l0.moe.dispatch", "exchange", "forward", "all_to_all", "communication", "all-to-all", "ep", 0.5, 100.0),
    ("l1.attention.qkv", "gemm", "forward", "compute", "compute", "", "", 3.0, 0.0),
    ("l1.moe.dispatch", "exchange", "forward", "all_to_all", "communication", "all-to-all", "ep", 1.5, 300.0),
    ("l1.moe.norm.grad", "sweep", "backward", "compute", "compute", "", "", 2.0, 0.0),
    ("gradients.dense.all-reduce", "exchange", "update", "gradient_sync", "communication", "all-reduce", "ep+dp", 4.0, 8.0),
]  # fmt: skip
RANKS = {f"rank {2 * ep + dp}": {"ep": ep, "dp": dp} for ep, dp in itertools.product(range(2), range(2))}


def made(
    seconds=lambda name, phase, step, rank: 1.0, classes=None, steps=1, measured=False, fitted=(), machine="bench"
):
    """A run of 4 ranks whose operations take their usual seconds times what ``seconds`` says, one after another."""
    classes = classes or {"all": {"coordinate": {"ep": 0, "dp": 0}, "ranks": 4}}
    rows, each_step, phases, breakdown = [], [], {}, {}
    for step in range(steps):
        for rank in classes:
            clock = 0.0
            for name, kind, phase, category, stream, collective, axes, usual, nbytes in OPERATIONS:
                taken = usual * seconds(name, phase, step, rank)
                what = (name, kind, phase, category, stream, collective, axes, "machine" if axes else "")
                rows.append((step, *what, rank, clock, clock + taken, nbytes, 7.0, ""))
                clock += taken
                for sums, key in ((phases, phase), (breakdown, category)):
                    sums.setdefault(key, [0.0] * steps)[step] += taken / len(classes)
        each_step.append(clock)
    totals = {
        "machine": machine, "model": "toy", "parameters": {"total": 10}, "mesh": {"ep": 2, "dp": 2}, "placement": "moda",
        "ranks": 4, "nodes": 4, "supernodes": 1, "tokens_per_rank": 64, "micro_batches": 1,
        "step_seconds": sum(each_step) / steps, "each_step_seconds": each_step,
        "phases": {key: sum(values) / steps for key, values in phases.items()}, "each_step_phases": phases,
        "breakdown": {key: sum(breakdown.get(key, [0.0])) / steps for key in CATEGORIES}, "each_step_breakdown": breakdown,
        "load_balance": {"max_over_mean": 1.5, "moved_fraction": 0.25, "dropped_fraction": 0.0},
        "fitted_constants": list(fitted), "warnings": [],
        "links": [{"kind": "nic.out", "bytes_per_step": 9.0, "mean_utilisation": 0.5, "max_utilisation": 0.75}],
    }  # fmt: skip
    if measured:
        totals["measured"] = {"library": "MPICH 5.0", "hosts": ["n0", "n1"]}
    plan = {"all_to_all": "pairwise-xor", "top_k": 2, "router": "uniform", "seed": 0}
    return Run(totals, plan, classes, rows, {})


def of_ranks(names=RANKS):
    return {name: {"coordinate": RANKS[name], "ranks": 1} for name in names}


def times(factor):
    return lambda *_: factor


def by_name(rows):
    return {row.name: row for row in rows}


def one(*runs):
    (pair,) = compare_runs(*runs).pairs
    return pair


def saved(folder, **runs):
    for name, run in runs.items():
        run.save(folder / f"{name}.json")
    return [str(folder / f"{name}.json") for name in runs]


def cli(monkeypatch, capsys, *arguments):
    """(exit status, stdout, stderr) of the command line."""
    monkeypatch.setattr(sys, "argv", ["athanor", *map(str, arguments)])
    status = 0
    try:
        main()
    except SystemExit as done:
        status = done.code or 0
    return status, *capsys.readouterr()


# --- numbers -------------------------------------------------------------------------------------------------------------


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
    errors = Errors.of([("a", Row("a", 1.5, 1.0)), ("b", Row("b", 5.0, 10.0)), ("c", Row("c", 1.0, 0.0))])
    assert errors == Errors(2, 0.0, 0.5, ("a", 0.5))
    weighted = Errors.of([("a", Row("a", 1.5, 1.0)), ("b", Row("b", 5.0, 10.0))], weighted=True)
    assert weighted == Errors(2, pytest.approx(-4.5 / 11), pytest.approx(5.5 / 11), ("b", -0.5))
    assert Errors.of([("c", Row("c", 1.0, 0.0))]) == Errors(0, None, None, None)


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


def test_parts_of_names_that_say_layer_and_micro_batch():
    for name, short in (
        ("m3.l12.moe.up", "moe.up"),
        ("m0.again.l1.attention.qkv", "again.attention.qkv"),
        ("l2.gradients.experts.fp32.all-reduce", "gradients.experts.fp32.all-reduce"),
        ("l0.moe.swipe0.counts", "moe.swipe0.counts"),
        ("embedding.lookup", "embedding.lookup"),
    ):
        assert compare.LAYER.sub("", name) == short


def test_the_same_traffic_or_not():
    less = made(measured=True)
    rows = [(*row[:12], row[12] / 2, *row[13:]) if row[1].endswith("moe.dispatch") else row for row in less.trace]
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
        assert error == pytest.approx(0.0 if kind in ("gemm", "sweep") else 1.0, abs=1e-9), kind
    assert {row.name: pytest.approx(row.relative_error) for row in pair.groups["levels"]} == {
        "supernode": 1.0,
        "machine": 1.0,
    }


def test_an_algorithm_that_was_replaced_is_not_claimed():
    run = made()
    run.totals["warnings"] = ["all-to-all over ep runs as linear instead of two-level: its groups have unequal parts"]
    assert "all-to-all" in by_name(one(run, made()).groups["kinds"])


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
    orders = [[row[1] for row in run.trace if row[0] == 0] for run in (predicted, measured)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    pair = one(predicted, measured)
    assert pair.step.relative_error < 0
    assert pair.matched[0].measured == ("rank 0",)


# --- several pairs -------------------------------------------------------------------------------------------------------


def pairs_of(*steps, fitted=()):
    """Runs in turn, predicted and measured, that take these steps; the keys of fitted constants of each pair."""
    keys = [*fitted, *([()] * len(steps))]
    for (predicted, measured), key in zip(steps, keys, strict=False):
        yield made(times(predicted), fitted=key)
        yield made(times(measured), measured=True)


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
    """A copy of a run with other values; None takes a key away."""
    merged = {key: value for key, value in {**run.totals, **totals}.items() if value is not None}
    return Run(merged, {**run.plan, **(plan or {})}, run.classes, run.trace if rows is None else rows, {})


def with_row(change, at=3):
    """A run whose row ``at`` has other values in some columns."""
    rows = list(made().trace)
    rows[at] = tuple(change.get(column, value) for column, value in zip(COLUMNS, rows[at], strict=True))
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
    (changed(made(), rows=[made().trace[0][:-1]]), "m.json: row 0 of the trace has 14 columns, must have 15"),
    (changed(made(), fitted_constants=None), "m.json: summary.fitted_constants is missing"),
    (changed(made(), step_seconds=0.0), "m.json: summary.step_seconds is 0.0: input should be greater than 0"),
    (changed(made(), step_seconds="slow"), 'm.json: summary.step_seconds is "slow": input should be a valid number'),
    (Run(made().totals, {}, {"all": {"ranks": 4}}, made().trace, {}), "m.json: classes.all.coordinate: field required"),
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
    other = changed(made(measured=True, machine="rig"), plan={"router": "zipf:1.0", "seed": 4, "top_k": None})
    assert one(made(), other).notes == [
        "predicted for bench, measured on rig",
        "top_k is 2 in prediction of pair and the model's own in run of pair",
        "router is uniform in prediction of pair and zipf:1.0 in run of pair",
        "seed is 0 in prediction of pair and 4 in run of pair",
    ]
    assert one(made(), made()).notes == ["run of pair was simulated, not measured: this compares two predictions"]
    assert one(made(measured=True), made(measured=True)).notes == [
        "prediction of pair was measured as well: this compares two runs"
    ]


def test_an_older_run_without_times_of_each_step_is_still_compared():
    old = changed(made(steps=2, measured=True), each_step_phases=None, each_step_breakdown=None)
    pair = one(made(), old)
    assert pair.step.variation == 0
    assert [row.variation for row in pair.phases] == [None] * 3


# --- what is shown and written -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A prediction, and what a run of it may look like: other hardware, jitter, three steps."""
    folder = tmp_path_factory.mktemp("runs")
    machine = athanor.load_machine("cluster-64")
    slower = machine.changed({"node.interface_bandwidth": machine.node.interface_bandwidth / 2})
    options = {"mesh": {"ep": 2, "dp": 2}, "router": "zipf:1.0", "balancer": "none", "seed": 1}
    predicted = athanor.simulate(machine, "moda-tiny", **options)
    measured = athanor.simulate(slower, "moda-tiny", jitter=0.1, steps=3, **options)
    # The classes are the most and least loaded of either run; here the same ranks shall be observed.
    classes = dict(zip(measured.classes, predicted.classes.values(), strict=True))
    totals = {**measured.totals, "measured": {"library": "MPICH 5.0", "hosts": ["n0", "n1"], "load": 0.5}}
    return saved(folder, p=predicted, m=Run(totals, measured.plan, classes, measured.trace, measured.expert_load))


def test_the_command_prints_tables(real, monkeypatch, capsys):
    status, out, error = cli(monkeypatch, capsys, "compare", *real)
    assert (status, error) == (0, "")
    text = " ".join(out.split())
    for word in ("Zero-fit", "note:", "forward", "gradient_sync", "gemm", "all-to-all (linear)", "ep+dp", "supernode"):
        assert word in text
    for word in (
        "steps vary by",
        "operations, by measured time",
        "moe.dispatch",
        "dropped fraction",
        "nic.out",
        "MAPE",
    ):
        assert word in text


def test_json_on_stdout_is_all_there_is_and_every_key_is_explained(real, monkeypatch, capsys):
    status, out, error = cli(monkeypatch, capsys, "compare", *real, *real, "--json", "-")
    assert status == 0
    assert error.splitlines() == ["compare: p 1 done", "compare: p 2 done"]
    plain = json.loads(out)
    assert plain == json.loads(json.dumps(compare_runs(*real, *real).plain()))
    page = (Path(__file__).parent.parent / "docs" / "formats" / "comparison.md").read_text()

    def keys(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield key
                yield from keys(item)
        elif isinstance(value, list):
            for item in value:
                yield from keys(item)

    for pair in plain["pairs"]:
        assert pair["measured"].pop("plan")["steps"] == 3, "its keys are those of docs/plan.md"
        assert pair["predicted"].pop("plan")["router"] == "zipf:1.0"
    others = {"ep", "dp", "library", "hosts", "load"} | set(plain["pairs"][0]["load"]["measured"])
    for key in set(keys(plain)) - others:
        side = re.sub(r"^(predicted|measured)_(?=bytes_per|mean|max)", "", key)
        assert f"`{key}`" in page or f"`{side}`" in page, key


def test_what_is_written_of_one_pair(real, tmp_path, monkeypatch, capsys):
    assert cli(monkeypatch, capsys, "compare", *real, "--out", tmp_path / "out")[0] == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {f"{name}.{kind}" for name in ("timelines", "errors", "operations") for kind in ("svg", "png")}
    assert written == plots | {"comparison.json", "operations.csv", "report.html"}
    pair = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "operations.csv").read_text())))
    assert {row["ranks"] for row in rows} == {each["ranks"] for each in pair["matched"]}
    for wanted in pair["operations"]:
        place = (wanted["name"], wanted["ranks"])
        here = [row for row in rows if (compare.LAYER.sub("", row["operation"]), row["ranks"]) == place]
        assert len(here) == wanted["count"]
        for key in ("predicted_seconds", "measured_seconds"):
            assert sum(float(row[key]) for row in here) == pytest.approx(wanted[key])
    page = read(tmp_path / "out" / "report.html")
    text = " ".join(" ".join(page.text).split())
    assert page.links == [], "the report needs no other file and no network"
    assert page.tags.count("svg") == 3
    for word in (
        "Predicted against measured: moda-tiny on cluster-64",
        "Timelines",
        "athanor compare",
        "MPICH 5.0",
        "zipf:1.0",
    ):
        assert word.lower() in text.lower(), word


def test_what_is_written_of_several_pairs(tmp_path):
    found = compare_runs(*pairs_of((1.0, 2.0), (3.0, 1.0), fitted=[(), ("calibration.gemm_efficiency",)]))
    write_comparison(Folder(tmp_path), found, "athanor compare")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"steps.svg", "timelines_1.png", "timelines_2.png", "errors_2.svg", "report.html"} <= names
    text = " ".join(" ".join(read(tmp_path / "report.html").text).split())
    for word in (
        "zero-fit",
        "pair 2: times",
        "Fitted: the prediction rests on calibration.gemm_efficiency",
        "rank correlation",
    ):
        assert word in text


def test_an_interruption_keeps_the_pairs_that_are_done(tmp_path, monkeypatch, capsys):
    files = saved(tmp_path, p1=made(), m1=made(measured=True), p2=made(), m2=made(measured=True))
    done, real_pair = [], compare.compare_pair

    def interrupted(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(arguments)
        return real_pair(*arguments)

    monkeypatch.setattr(compare, "compare_pair", interrupted)
    status, _, error = cli(monkeypatch, capsys, "compare", *files, "--out", tmp_path / "out")
    assert status == 130
    assert error.splitlines()[-1] == "athanor: interrupted"
    assert [pair["name"] for pair in json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]] == ["p1"]


def test_the_command_of_the_page_runs_in_a_process_of_its_own(tmp_path):
    athanor_ = [sys.executable, "-m", "athanor.cli"]
    tiny = ["--machine", "cluster-64", "--model", "moda-tiny", "-o"]
    for file, more in (("p.json", []), ("m.json", ["--steps", "2", "--jitter", "0.02"])):
        subprocess.run([*athanor_, "simulate", *tiny, file, *more], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        [*athanor_, "compare", "p.json", "m.json", "--json", "-"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    step = json.loads(done.stdout)["pairs"][0]["step"]
    assert step["relative_error"] == pytest.approx(step["predicted_seconds"] / step["measured_seconds"] - 1)
    assert step["measured_variation"] > 0


# --- plots ---------------------------------------------------------------------------------------------------------------


def test_timelines_show_both_sides_to_one_scale():
    pair = one(made(), made(times(2.0), measured=True))
    figure = comparison_plots.timelines(pair)
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim()
    for axes, side, seconds in ((above, "predicted: all ranks alike, step 0, 12 s", 12), (below, "measured: all", 24)):
        assert axes.get_title(loc="left").startswith(side)
        spans = [path.get_extents() for drawn in axes.collections for path in drawn.get_paths()]
        assert sum(span.width for span in spans) == pytest.approx(1e3 * seconds)
        assert max(span.x1 for span in spans) == pytest.approx(1e3 * seconds)
        assert [text.get_text() for text in axes.texts] == ["forward", "backward", "update"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["compute", "communication"]
    assert below.get_xlabel() == "ms from the start of the step"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "compute",
        "all-to-all",
        "gradient-sync",
        "end of the step",
    }


def test_the_step_of_median_length_is_shown():
    pace = [5.0, 1.0, 2.0]
    pair = one(made(), made(lambda name, phase, step, rank: pace[step], steps=3, measured=True))
    assert (pair.timelines[1].step, pair.timelines[1].seconds) == (2, 24.0)
    assert pair.timelines[1].phases == {"forward": 0.0, "backward": 12.0, "update": 16.0}


def test_bars_too_close_to_be_told_apart_are_joined():
    bars = [Bar("compute", "compute", "forward", at, at + 0.9) for at in (0.0, 1.0, 3.0)]
    bars.append(Bar("communication", "all_to_all", "forward", 0.5, 0.6))
    bars.append(Bar("compute", "compute", "backward", 3.95, 5.0))
    found = Timeline("all", 0, 5.0, bars).merged(gap=0.2)
    spans = [(bar.stream, bar.phase, bar.start, bar.end) for bar in found]
    assert spans == [
        ("compute", "forward", 0.0, 1.9),
        ("communication", "forward", 0.5, 0.6),
        ("compute", "forward", 3.0, 3.9),
        ("compute", "backward", 3.95, 5.0),
    ]


def test_points_and_bars_stand_where_the_numbers_are():
    slow = made(
        lambda name, phase, step, rank: (4.0 if phase == "backward" else 1.0) * (1 + 0.1 * step), steps=2, measured=True
    )
    pair = one(made(), slow)
    points = {
        (x, y) for line in comparison_plots.operations(pair).axes[0].get_lines() if line.get_marker() == "o"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }  # fmt: skip
    assert points == {(row.seconds.measured, row.seconds.predicted) for row in pair.operations}
    figure = comparison_plots.errors(pair)
    widths = [patch.get_width() for patch in figure.axes[0].patches[1:]]
    rows = [pair.step, *pair.phases, *pair.categories, *pair.groups["kinds"]]
    assert widths == pytest.approx([row.relative_error for row in rows])
    for word in ("relative error of the prediction", "whiskers", "±10%", "kinds of operation"):
        assert word in drawn_text(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:4] == [
        "step",
        "forward",
        "backward",
        "update",
    ]
    steps = comparison_plots.steps(compare_runs(*pairs_of((1.0, 2.0), (3.0, 1.0), fitted=[(), ("a",)])).pairs)
    for word in ("zero-fit", "fitted", "pair 1", "pair 2", "no error", "measured", "predicted"):
        assert word in drawn_text(steps)


def test_a_bar_that_is_cut_says_its_true_error():
    figure = comparison_plots.errors(one(made(times(9.0)), made()))
    assert figure.axes[0].patches[1].get_width() == comparison_plots.MOST_ERROR
    assert "+800.00% (cut)" in drawn_text(figure)


def test_a_comparison_without_pairs_of_a_kind_has_none_of_it():
    assert Comparison([]).plain() == {"pairs": [], "zero_fit": None, "fitted": None}
