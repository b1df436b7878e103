"""The validation study: its figures on made-up measurements, its report, and what it refuses; one job on a real cluster."""

import json
import re

import athanor
import numpy as np
import pytest
from athanor.cli import cli
from athanor.hardware.errors import InputError
from athanor.hardware.machine_writer import machine_toml
from athanor.mpi_runtime.cluster import Cluster, Shape, machine_of, missing
from athanor.reports.pages.output_folder import Folder
from athanor.reports.pages.runtime_validation import cell_rows, write_validation
from athanor.reports.studies import runtime_validation as validation
from athanor.workloads.results.run import Run
from click.testing import CliRunner
from support.mpi_jobs import BIN, needs_mpi

TREE = validation.StudyTree(2, 2, 200, ("sleep", "gemm"))
WHY = missing()
needs_cluster = pytest.mark.skipif(WHY is not None, reason=f"no cluster can be emulated here: {WHY}")


@pytest.fixture(scope="module", autouse=True)
def small():
    """Cells that are made up in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "TOKENS", 64)
        patch.setattr(validation, "STEPS", 2)
        patch.setattr(validation, "SKEWS", (0.0, 1.0, 0.5))
        yield


@pytest.fixture(scope="module")
def nominal(small):
    """What a study would have kept of a machine that is as it says."""
    return made_up()


@pytest.fixture(scope="module")
def slower(small):
    """The study of a machine whose network is slower than it says."""
    return validation.validate((TREE,), made_up(network=0.5, taper=0.8))


def made_up(network=1.0, taper=1.0):
    """What a study on a tree whose links have so much of their nominal rates would have kept."""
    nominal = machine_of(TREE.shape)
    efficiency = nominal.calibration.network_efficiency
    real = nominal.changed(
        {"calibration.network_efficiency": network * efficiency, "fabric.taper": taper * nominal.fabric.taper}
    )
    kept = {f"machine {TREE.name}": {"file": machine_toml(real)}}
    for cell in validation.cells(TREE):
        run = athanor.simulate(real, validation.MODEL, depth="message", **cell.options)
        kept[cell.name] = json.loads(
            json.dumps(
                Run(
                    run.totals.model_copy(update={"measured": {}}), run.plan, run.classes, run.trace, run.expert_load
                ).to_plain()
            )
        )
    return kept


def test_cells_cover_the_study():
    found = list(validation.cells(TREE))
    assert len({cell.name for cell in found}) == len(found) == 12 + 4
    assert {cell.skew for cell in found if cell.compute == "sleep"} == {0.0, 0.5, 1.0}
    assert sum(len(list(validation.cells(tree))) for tree in validation.TREES) == 3 * 12 + 4
    assert [tree.supernodes * tree.nodes for tree in validation.TREES] == [4, 8, 16]


def test_dense_plans_are_run_where_they_are_asked_for(tmp_path):
    """Every rank has its place, on trees of any size, and a plan that was measured as predicted has no error."""
    every = ",".join(validation.WAYS)
    for tree in validation.varied(validation.TREES, every, "1000"):
        found = list(validation.cells(tree))
        assert [cell.plan for cell in found] == list(validation.WAYS) and "1000 Mbit/s" in tree.name
        assert all(np.prod(list(cell.options["mesh"].values())) == tree.supernodes * tree.nodes for cell in found)
    (tree,) = validation.varied((TREE,), "fsdp,pp", None)
    assert len(list(validation.cells(tree))) == 2
    nominal = machine_of(tree.shape)
    kept = {f"machine {tree.name}": {"file": machine_toml(nominal)}}
    for cell in validation.cells(tree):
        run = athanor.simulate(nominal, cell.model, depth=cell.depth, **cell.options)
        totals = run.totals.model_copy(update={"measured": {}})
        kept[cell.name] = json.loads(Run(totals, run.plan, run.classes, run.trace, run.expert_load).to_json())
    found = validation.validate((tree,), kept)
    plain = found.plain()
    assert plain["zero_fit"]["cells"] == 2 and plain["zero_fit"]["worst"] == pytest.approx(0, abs=1e-9)
    assert [row[1] for row in cell_rows(plain)] == ["fsdp", "pp"]
    write_validation(Folder(tmp_path), found, "athanor validate-runtime")
    svg = (tmp_path / "validation.svg").read_text()
    assert {"fsdp", "pp"} <= set(re.findall(r"<!-- (.*?) -->", svg)) and "balancer" not in svg
    for wrong, asked in (
        ("--plans zp: no such plan", {"plans": "dp,zp"}),
        ("--rate 0: must be from 1", {"rate": "50,0"}),
        ("--taper 2: must be a share", {"taper": "1,2"}),
    ):
        with pytest.raises(InputError, match=wrong):
            validation.varied((TREE,), **asked)


def test_a_grid_has_every_tree_at_every_rate_and_taper():
    """Each tree calibrates for itself: names tell them apart, and one cell stands for all with experts."""
    grid = validation.varied((TREE, validation.TREES[1]), "ep,tp", "50,1000", "1/8,1")
    assert len({tree.name for tree in grid}) == len(grid) == 8
    assert {(tree.shape.node_rate, tree.shape.taper) for tree in grid} == {
        (rate, taper) for rate in (50e6 / 8, 1e9 / 8) for taper in (1 / 8, 1.0)
    }
    assert [[cell.plan for cell in validation.cells(tree)] for tree in grid] == [["ep", "tp"]] * 8


def test_a_machine_that_is_as_it_says_is_predicted_exactly(nominal):
    plain = validation.validate((TREE,), nominal).plain()
    assert plain["zero_fit"]["cells"] == 12 == plain["by"]["plan"]["experts"]["calibrated"]["cells"]
    assert plain["zero_fit"]["mape"] == pytest.approx(0, abs=1e-9)
    assert plain["zero_fit"]["rank_correlation"] == pytest.approx(1)
    assert plain["cross_over_inside"] == pytest.approx(3 / 16)


def test_a_slower_network_shows_in_nominal_predictions_and_not_in_calibrated_ones(slower):
    plain = slower.plain()
    assert -0.65 < plain["zero_fit"]["bias"] < -0.3
    assert plain["zero_fit"]["worst"] >= plain["zero_fit"]["mape"] > 0.3
    assert plain["calibrated"]["mape"] == pytest.approx(0, abs=1e-9)
    assert plain["calibrated_gemm"]["mape"] == pytest.approx(0, abs=1e-9)
    assert plain["cross_over_inside"] == pytest.approx(0.8 * 3 / 16)
    for cell in plain["cells"]:
        assert set(cell["zero_fit"]) == {"step_seconds", "relative_error", "phases"}
        assert set(cell["zero_fit"]["phases"]) == {"forward", "backward", "update"}


def test_its_report(slower, tmp_path):
    write_validation(Folder(tmp_path), slower, "athanor validate-runtime")
    assert json.loads((tmp_path / "validation.json").read_text()) == json.loads(json.dumps(slower.plain()))
    assert len((tmp_path / "cells.csv").read_text().splitlines()) == 1 + 16
    report = (tmp_path / "report.html").read_text()
    assert (
        report.count("<svg") == 2 and "nominal rates, nothing fitted" in report and "athanor validate-runtime" in report
    )


def test_what_was_kept_is_not_measured_again(nominal, monkeypatch):
    kept = dict(nominal)
    lacking = [cell.name for cell in validation.cells(TREE)][3]
    whole = kept.pop(lacking)
    measured, new = [], {}
    monkeypatch.setattr(validation.Cluster, "up", classmethod(lambda cls, shape, name: _Nothing()))
    monkeypatch.setattr(validation._Bench, "measure", lambda bench, cell: measured.append(cell.name) or whole)
    monkeypatch.setattr(validation._Bench, "calibrate", lambda bench: pytest.fail("calibrated again"))
    found = validation.validate((TREE,), kept, new.__setitem__)
    assert measured == [lacking] == list(new)
    assert len(found.outcomes) == 16


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_unknown_trees_and_computers_without_clusters(monkeypatch):
    with pytest.raises(InputError, match=r"--trees 3x3: no such tree \(2x2, 2x4, 4x4\)"):
        validation.chosen("2x2,3x3")
    assert [tree.name for tree in validation.chosen("4x4")] == ["4x4 at 100 Mbit/s"]
    monkeypatch.setattr(
        "athanor.mpi_runtime.cluster.cluster.missing", lambda: "the program tc is missing (package iproute2)"
    )
    refused = CliRunner().invoke(cli, ["validate-runtime", "--trees", "2x2"], standalone_mode=False)
    assert isinstance(refused.exception, InputError)
    assert "the program tc is missing" in str(refused.exception)


@needs_mpi
@needs_cluster
def test_placements_are_real_on_an_emulated_cluster(tmp_path):
    """The same plan placed twice: the bytes over uplinks are those that the simulator predicts for each."""
    shape, crossed = Shape(supernodes=2, nodes=2, node_rate=50e6, taper=3 / 16), {}
    machine = tmp_path / "tree.toml"
    machine.write_text(machine_toml(machine_of(shape)))
    options = {"mesh": {"ep": 2, "dp": 2}, "tokens_per_rank": 64}
    with Cluster.up(shape, name="test-placements") as cluster:
        for placement in ("moda", "opposite"):
            found = tmp_path / f"{placement}.json"
            flags = ("--mesh", "ep=2,dp=2", "--tokens-per-rank", "64", "--placement", placement, "--compute", "sleep")
            command = [str(BIN / "athanor"), "execute", "--machine", str(machine), "--model", "moda-tiny", *flags]
            done = cluster.run([*command, "-o", str(found)], limit=60, capture=True)
            assert done.returncode == 0, done.stderr
            run = Run.load(found)
            simulated = athanor.simulate(machine, "moda-tiny", placement=placement, depth="message", **options)
            sides = [
                {row["kind"]: row["bytes_per_step"] for row in each.summary()["links"]} for each in (run, simulated)
            ]
            assert sides[0] == pytest.approx(sides[1], rel=1e-3)
            assert run.summary()["measured"]["hosts"] == ["node-0", "node-1", "node-2", "node-3"]
            assert run.summary()["measured"]["cluster"] == "test-placements"
            host = ("other processes took", "the load of a host")  # as it may be while tests run
            assert not [each for each in run.summary()["warnings"] if not each.startswith(host)]
            crossed[placement] = sides[0]["trunk.out"]
    assert crossed["opposite"] > 1.5 * crossed["moda"]
