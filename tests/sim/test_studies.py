"""Studies: their points, what becomes of each, and that who works on them does not show."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
from athanor.hardware.errors import InputError
from athanor.sim.simulate import simulate
from athanor.sim.studies.scaling import scale
from athanor.sim.studies.study import study
from athanor.sim.studies.study.designs import points_of, shares_of
from athanor.sim.studies.study.factors import Choices, Range, factor, grid_values
from athanor.sim.studies.study.search import search
from athanor.sim.studies.study.sensitivity import sensitivity
from athanor.sim.studies.study.study_file import Sample, StudyFile
from athanor.sim.workers import Here, Processes
from support.command_line import ATHANOR, PATIENCE, athanor, eventually, has_lines, start
from support.mpi_jobs import job, needs_mpi

BASE = {"machine": "laptop", "model": "moda-tiny", "plan": {"mesh": "ep=2,dp=2", "balancer": "even"}}

GEMM = "machine.calibration.gemm_efficiency"


def file_of(**keys):
    return StudyFile.of({**BASE, **keys})


def test_points_are_all_combinations_in_their_order():
    file = file_of(
        list=[{"plan.mesh": "ep=2,dp=2"}, {"plan.mesh": "ep=4"}],
        grid={"machine": {"nodes": [1, 2]}},
        sample={"points": 3, "over": {"plan": {"seed": [0, 1, 2]}}},
    )
    rows = [point.row for point in points_of(file)]
    assert [row["plan.mesh"] for row in rows] == [*[{"ep": 2, "dp": 2}] * 6, *[{"ep": 4}] * 6]
    assert [row["machine.nodes"] for row in rows] == [1, 1, 1, 2, 2, 2] * 2


def test_a_row_says_what_simulate_says_and_its_inputs_are_exact():
    found = study({**BASE, "grid": {GEMM: [0.3, 0.6], "model.hidden": [64, 128], "plan.zero": ["0", "1"]}})
    assert list(found["status"]) == ["ok"] * 8
    for row in found.to_dict("records"):
        machine = load(row["machine"]).changed({"calibration.gemm_efficiency": row[GEMM]})
        model = load_shape(row["model"]).changed({"hidden": row["model.hidden"]})
        run = simulate(machine, model, mesh="ep=2,dp=2", balancer="even", zero=row["plan.zero"])
        assert run.summary()["step_seconds"] == row["step_seconds"]
        inputs = json.loads(row["inputs"])
        assert inputs["set"] == {"calibration.gemm_efficiency": row[GEMM]}
        assert inputs["model_changes"] == {"hidden": row["model.hidden"]}
    assert found["step_seconds"].nunique() == 8


def load(name):
    from athanor.hardware.machine import load_machine

    return load_machine(name)


def load_shape(name):
    from athanor.workloads.model.model import load_model

    return load_model(name)


def test_points_that_fail_are_rows_with_their_reason():
    found = study({**BASE, "grid": {"plan.mesh": ["ep=2", "ep=3"], "machine.core_group.memory": ["16 GB", "1 MB"]}})
    assert list(found["status"]) == ["ok", "does not fit", "refused", "refused"]
    assert "does not divide the 4 experts" in found["reason"][2]
    assert found["step_seconds"].notna().tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"grid": {"plan.mehs": ["ep=2"]}}, "did you mean mesh"),
        ({"grid": {"mesh": ["ep=2"]}}, "did you mean plan.mesh"),
        ({"grid": {"machine.nods": [2]}}, "did you mean nodes"),
        ({"grid": {"model.hiden": [2]}}, "did you mean hidden"),
        ({"grid": {"plan.balancer": ["swip"]}}, "did you mean swipe"),
        ({"grid": {"plan.micro_batch": ["x"]}}, "must be a whole number"),
        ({"grid": {"campaign.seeds": [1]}}, "no such key of a study"),
        ({"grid": {"plan.seed": [1]}, "list": [{"plan.seed": 2}]}, "stands in list and in grid"),
        ({"grid": {"plan.seed": {"from": 1, "to": 3}}}, "needs count or step"),
        ({"grid": {"plan.seed": {"from": 3, "to": 1, "step": 1}}}, "must be below"),
        ({"sample": {"over": {"plan.seed": [1]}}}, "sample.points is missing"),
        ({"sample": {"points": 2, "method": "lhs", "over": {"plan.seed": [1]}}}, "no such method"),
        ({"command": "simulat"}, "did you mean simulate"),
        ({"plots": [{"x": "a"}]}, "needs a column"),
        ({"scale": {"kind": "week"}}, "must be weak or strong"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_done(keys, said):
    with pytest.raises(InputError, match=said):
        study({**BASE, **keys})


def test_rows_do_not_depend_on_who_works():
    table = {**BASE, "grid": {GEMM: [0.2, 0.4], "plan.mesh": ["ep=2", "ep=3", "ep=4"]}}
    crew = Processes(2, patience=0.0)
    try:
        shared = study(table, workers=crew)
    finally:
        crew.close()
    pd.testing.assert_frame_equal(shared, study(table, workers=Here()))


class Killed(BaseException):
    """What ends a study from outside."""


class Ending:
    """Works on some points, and is then ended."""

    def __init__(self, after):
        self.left = after

    def results(self, call, tasks):
        for number, task in enumerate(tasks):
            if not self.left:
                raise Killed
            self.left -= 1
            yield number, call(task)


class Counting:
    """Works here, and counts."""

    def __init__(self):
        self.done = 0

    def results(self, call, tasks):
        for number, task in enumerate(tasks):
            self.done += 1
            yield number, call(task)


def test_a_study_that_is_killed_goes_on_where_it_was(tmp_path):
    table = {**BASE, "grid": {GEMM: [0.2, 0.3, 0.4, 0.5, 0.6]}}
    with pytest.raises(Killed):
        study(table, out=tmp_path, workers=Ending(3))
    counted = Counting()
    again = study(table, out=tmp_path, workers=counted)
    assert counted.done == 2
    pd.testing.assert_frame_equal(again, study(table))


def test_a_changed_machine_file_is_another_point(tmp_path):
    from athanor.hardware.machine import CATALOGUE

    source = (CATALOGUE / "laptop.toml").read_text()
    own = tmp_path / "own.toml"
    table = {**BASE, "machine": str(own), "grid": {"plan.seed": [0]}}
    seconds = []
    for efficiency in ("0.5", "0.25"):
        own.write_text(with_efficiency(source, efficiency))
        seconds.append(study(table, out=tmp_path / "kept")["step_seconds"][0])
    assert seconds[1] > seconds[0]


def with_efficiency(source, value):
    import re

    changed, count = re.subn(r"gemm_efficiency = [0-9.]+", f"gemm_efficiency = {value}", source, count=1)
    assert count == 1
    return changed


def test_tasks_of_an_array_share_the_points(tmp_path):
    (tmp_path / "s.toml").write_text(
        'machine = "laptop"\nmodel = "moda-tiny"\n[grid]\nplan.mesh = ["ep=2", "ep=3", "ep=4"]\nplan.seed = [0, 1]\n'
    )
    out = tmp_path / "out"
    for task in ("1/2", "2/2"):
        assert not (out / "points.csv").exists()
        done = athanor("study", tmp_path / "s.toml", "--out", out, "--array-task", task, "--jobs", 1)
        assert done.returncode == 0, done.stderr
    alone = athanor("study", tmp_path / "s.toml", "--out", tmp_path / "alone", "--jobs", 1)
    assert alone.returncode == 0
    assert (out / "points.csv").read_bytes() == (tmp_path / "alone" / "points.csv").read_bytes()
    frame = pd.read_parquet(out / "points.parquet")
    assert list(frame["point"]) == list(range(6))
    assert sorted(each.name for each in out.glob("*.jsonl")) == ["points-1-of-2.jsonl", "points-2-of-2.jsonl"]


def test_a_latin_hypercube_has_a_point_in_each_part_of_every_factor():
    over = {"a": Range(0.0, 1.0), "b": Range(0.0, 1.0)}
    shares = shares_of(Sample("latin-hypercube", 16, over, seed=3))
    for column in shares.T:
        assert sorted(np.floor(16 * column)) == list(range(16))
    assert not np.array_equal(shares, shares_of(Sample("latin-hypercube", 16, over, seed=4)))


def test_factors_reach_all_their_values_and_no_others():
    shares = np.linspace(0, 1, 2001)
    whole = Range(2, 9, integer=True)
    assert {whole.at(share) for share in shares} == set(range(2, 10))
    steps = Range(64, 1024, step=64, integer=True)
    assert {steps.at(share) for share in shares} == set(range(64, 1025, 64))
    spread = Range(1, 1024, log=True)
    assert np.median([spread.at(share) for share in shares]) == pytest.approx(32, rel=0.01)
    logs = Range(1, 64, log=True, integer=True)
    drawn = [logs.at(share) for share in shares]
    assert (min(drawn), max(drawn)) == (1, 64)
    assert np.mean(np.array(drawn) <= 8) == pytest.approx(np.log(8.5 / 0.5) / np.log(64.5 / 0.5), abs=0.01)
    assert {Choices(("x", "y", "z")).at(share) for share in shares} == {"x", "y", "z"}
    assert grid_values("g", {"from": 1, "to": 100, "count": 3, "log": True}) == (1, 10, 100)
    assert grid_values("g", {"from": 1, "to": 7, "step": 2}) == (1, 3, 5, 7)
    assert factor("s", {"from": 1, "to": 7, "step": 2}).at(0.99) == 7


def test_a_scaling_study_has_the_points_of_scale():
    plan = {"mesh": "ep=2,dp=2", "tokens_per_rank": 256, "balancer": "even"}
    machine = load("cluster-64")
    for kind, grow in (("weak", "data"), ("weak", "experts"), ("strong", None)):
        table = {
            "model": "moda-tiny",
            "plan": plan,
            "scale": {"kind": kind, "nodes": [4, 8], **({"grow": grow} if grow else {})},
        }
        found = study(table, machine=machine)
        expected = scale(kind, machine, "moda-tiny", [4, 8], grow=grow, **plan).points
        assert list(found["step_seconds"]) == [point.summary["step_seconds"] for point in expected]
        assert list(found["efficiency"]) == [point.efficiency for point in expected]
        assert list(found["experts"]) == [point.experts for point in expected]
        grows = found["parameters.total"].nunique() == 2
        assert grows == (grow == "experts")


def test_a_data_frame_is_a_list_of_points():
    frame = pd.DataFrame({"machine": ["laptop", "laptop"], "plan.mesh": ["ep=2", "ep=4"], "plan.seed": [1, None]})
    found = study(frame, model="moda-tiny")
    assert list(found["mesh"]) == ["ep=2", "ep=4"]
    assert list(found["status"]) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("command", "own", "column"),
    [
        ("memory", {}, "total"),
        ("collective", {"op": "all-reduce", "ranks": 2, "algorithm": "ring"}, "seconds"),
        ("campaign", {"tokens": 1e7, "seeds": 2, "mtbf_node": "1y"}, "goodput"),
    ],
)
def test_points_are_of_any_command(command, own, column):
    table = {**BASE, "command": command, **({command: own} if own else {}), "grid": {"machine.nodes": [2, 4]}}
    if command == "collective":
        table.pop("plan")
    found = study(table)
    assert list(found["status"]) == ["ok", "ok"], list(found["reason"])
    assert found[column].notna().all()


def test_sobol_and_morris_find_what_matters():
    """Y = x0 + 2 x1: variances 1/12 and 4/12, so first-order indices 1/5 and 4/5; effects 1 and 2."""
    pytest.importorskip("SALib")
    over = {"x0": Range(0.0, 1.0), "x1": Range(0.0, 1.0), "x2": Range(0.0, 1.0)}
    sample = Sample("sobol", 1200, over, of="y")
    shares = shares_of(sample)
    rows = sensitivity(sample, shares, shares[:, 0] + 2 * shares[:, 1])
    assert [row["first_order"] for row in rows] == pytest.approx([0.2, 0.8, 0.0], abs=0.03)
    sample = Sample("morris", 40, over, of="y")
    shares = shares_of(sample)
    rows = sensitivity(sample, shares, shares[:, 0] + 2 * shares[:, 1])
    assert [row["mean_effect"] for row in rows] == pytest.approx([1.0, 2.0, 0.0], abs=1e-9)
    with pytest.raises(InputError, match="1 of 40 points have no y"):
        sensitivity(sample, shares, [np.nan, *shares[1:, 0]])


def test_a_search_comes_nearer_than_chance_and_asks_the_same_again():
    pytest.importorskip("optuna")
    over = {"x": Range(0.0, 1.0), "c": Choices(("a", "b"))}
    sample = Sample("search", 40, over, of="y")

    def asked():
        rows = []

        def evaluated(batch):
            rows.extend(batch)
            return [None if row["x"] > 0.98 else (row["x"] - 0.3) ** 2 + (row["c"] == "a") for row in batch]

        search(sample, evaluated)
        return rows

    rows = asked()
    assert rows == asked()
    assert len(rows) == 40
    assert np.mean([row["c"] == "b" for row in rows[20:]]) > 0.7


MANY = """
machine = "cluster-64"
model = "moda-tiny"
[plan]
mesh = "ep=4,dp=4"
[grid]
machine.calibration.gemm_efficiency = { from = 0.2, to = 0.6, count = 30 }
"""


def test_a_study_that_is_killed_loses_the_points_under_way_alone(tmp_path):
    """What it has told of stands in the folder, and is not done again; the table is then that of a study left in peace."""
    (tmp_path / "s.toml").write_text(MANY)
    out, command = tmp_path / "out", [*ATHANOR, "study", tmp_path / "s.toml", "--jobs", 2]
    killed = start([*command, "--out", out], start_new_session=True)
    assert eventually(lambda: has_lines(out / "points.jsonl", 5))
    os.killpg(killed.pid, signal.SIGKILL)
    _, told = killed.communicate(timeout=PATIENCE)
    kept = (out / "points.jsonl").read_text().splitlines()
    done = [int(each.split()[1].replace(",", "")) for each in told.splitlines() if " of 30 points" in each]
    assert 5 <= len(kept) < 30
    assert len(kept) >= max(done, default=0), "what was told is kept"
    again = athanor("study", tmp_path / "s.toml", "--jobs", 1, "--out", out)
    assert again.returncode == 0, again.stderr
    assert (out / "points.jsonl").read_text().count("\n") == 30
    alone = study(tmp_path / "s.toml")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "points.parquet"), alone, check_dtype=False)


@needs_mpi
def test_ranks_of_a_job_find_the_same_rows(tmp_path):
    (tmp_path / "s.toml").write_text(MANY.replace("count = 30", "count = 7"))
    done = job(3, "athanor", "study", tmp_path / "s.toml", "--out", tmp_path / "ranks")
    assert done.returncode == 0, done.stderr
    for jobs in (1, 2):
        assert athanor("study", tmp_path / "s.toml", "--jobs", jobs, "--out", tmp_path / f"{jobs}").returncode == 0
    tables = {each: (tmp_path / each / "points.csv").read_bytes() for each in ("ranks", "1", "2")}
    assert tables["ranks"] == tables["1"] == tables["2"]
    assert tables["1"].count(b",ok,") == 7
