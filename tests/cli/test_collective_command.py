"""``athanor collective``: SimGrid's times, results and their files, the decision table, and what is refused."""

import csv
import json
import os
import shlex
import signal

import pytest
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.hardware.machine import load_machine
from athanor.reports.pages.collective import POINT_COLUMNS
from athanor.sim.studies import collective as module
from athanor.sim.studies.collective import Collective, collective
from athanor.sim.studies.collective_sweep import compare, sweep, swept_counts, swept_sizes
from athanor.workloads.collectives import ALGORITHMS
from support.command_line import ATHANOR, PATIENCE, athanor, eventually, has_lines, start
from support.machines import tree
from support.paths import DATA, MACHINE_FILES, ROOT

ORACLE = list(csv.DictReader((DATA / "simgrid.csv").read_text().splitlines()))
PATTERNS = {
    "all": ("all-to-all", "linear"),
    "pairshift": ("all-to-all", "pairwise-shift"),
    "pairxor": ("all-to-all", "pairwise-xor"),
    "ring": ("all-reduce", "ring"),
}
SMALL = ["--machine", "simgrid-tree", "--op", "all-to-all", "--ranks", "48"]


@pytest.mark.parametrize("row", ORACLE, ids=lambda row: "-".join(list(row.values())[:4] + [row["network_model"]]))
def test_simgrid(row):
    """Every row of SimGrid 4.0's times, its LV08 model and desynchronised ranks included, within 1e-6."""
    found = collective(
        "simgrid-tree",
        *PATTERNS[row["algorithm"]],
        int(row["ranks"]),
        float(row["message_bytes"]),
        routing="static" if row["platform"] == "ft" else "adaptive",
        nodes_per_supernode=int(row["hosts_per_supernode"]),
        network_model=row["network_model"],
        check_symmetry=int(row["ranks"]) <= 64,
    )
    assert found.seconds == pytest.approx(float(row["simulated_s"]), rel=1e-6)
    assert found.bound_seconds <= found.seconds


def test_one_collective_as_json_and_table(tmp_path):
    command = [
        "collective",
        "--machine",
        "simgrid-tree",
        "--op",
        "all-to-all",
        "--algorithm",
        "linear",
        "--ranks",
        "64",
    ]
    command += ["--bytes", "1MiB", "--nodes-per-supernode", "16"]
    done = athanor(*command, "--json", "-", "--out", tmp_path)
    found = json.loads(done.stdout)
    assert found["seconds"] == pytest.approx(0.02147883648)
    assert found["bound_seconds"] == pytest.approx(16 * 48 * 2**20 / (16 * 12.5e9 * 3 / 16)), "trunks are the narrowest"
    assert found["fraction_of_bound"] == found["bound_seconds"] / found["seconds"]
    assert found["algorithm_bandwidth"] == pytest.approx(64 * 2**20 / found["seconds"])
    assert found["bus_bandwidth"] == pytest.approx(found["algorithm_bandwidth"] * 63 / 64)
    inputs = {"machine": "simgrid-tree", "operation": "all-to-all", "algorithm": "linear", "ranks": 64, "nodes": 64}
    inputs |= {"bytes": 2**20, "placement": "block", "routing": "adaptive", "network_model": "maxmin"}
    inputs |= {"depth": "message", "messages": 64 * 63, "nodes_per_supernode": 16, "bottleneck": "trunk.out"}
    assert {key: found[key] for key in inputs} == inputs
    sent = {row["kind"]: row["bytes"] for row in found["links"]}
    assert sent["nic.out"] == pytest.approx(64 * 63 * 2**20)
    assert sent["trunk.in"] == pytest.approx(64 * 48 * 2**20)
    page = (ROOT / "docs" / "formats" / "collective.md").read_text()
    for key in [*found, *found["links"][0]]:
        assert f"`{key}`" in page, key
    written = {path.name for path in tmp_path.iterdir()}
    plots = {"algorithms.svg", "algorithms.png"}
    assert written == plots | {"collective.json", "algorithms.csv", "links.csv", "report.html"}
    shown = athanor(*command).stdout
    for text in ("21.4788 ms", "lower bound", "trunk.out", "bus bandwidth", "64 ranks on 64 nodes"):
        assert text in shown


def test_without_an_algorithm_all_that_can_run_are_compared():
    found = json.loads(athanor("collective", *SMALL, "--json", "-", "--nodes-per-supernode", "32").stdout)
    names = [each["algorithm"] for each in found["algorithms"]]
    assert sorted(names) == ["bruck", "linear", "pairwise-shift"]
    seconds = [each["seconds"] for each in found["algorithms"]]
    assert seconds == sorted(seconds)
    reasons = {each["algorithm"]: each["reason"] for each in found["left_out"]}
    assert "power of two" in reasons["pairwise-xor"]
    assert "not equally many" in reasons["two-level"]
    shown = athanor("collective", *SMALL, "--nodes-per-supernode", "32").stdout
    assert (
        "left out: all-to-all pairwise-xor: 48 ranks, must be a power of two; linear, pairwise-shift, bruck run on"
        in shown
    )


@pytest.mark.parametrize("operation", ALGORITHMS)
@pytest.mark.parametrize("placement", ["block", "scatter"])
def test_every_operation_is_compared_on_every_fabric(operation, placement):
    for machine in (*MACHINE_FILES, "cluster-64"):
        found = compare(machine, operation, 16, 4096, placement=placement)
        assert len(found.results) + len(found.left_out) == len(ALGORITHMS[operation])
        for each in found.results:
            assert each.bound_seconds <= each.seconds * (1 + 1e-9)
            assert each.nodes == 16


def test_supernodes_get_the_size_that_is_asked_for():
    """A trunk is then 3/16 of 16 injections; a fat tree keeps the number of its leaf switches."""
    machine = load_machine("simgrid-tree").with_supernodes_of(16)
    trunk, _ = machine.fabric_links(64)
    assert (machine.supernodes, trunk.count, trunk.capacity) == (64, 4, 3 * 12.5e9)
    tall = load_machine(ROOT / "examples" / "machines" / "fat-tree-512.toml")
    assert (tall.with_supernodes_of(4).supernode, tall.with_supernodes_of(4).nodes) == (4, 128)
    assert tall.with_supernodes_of(64).nodes == 512
    assert tall.with_supernodes_of(None) is tall


def test_a_linear_all_to_all_of_small_messages_is_bound_by_their_number():
    """A processor handles one message after another: 63 overheads, then the way across."""
    machine = tree(nodes=64, supernode=4, overhead=1.0, latencies=(0.0, 0.5, 2.0), injection=1e9)
    for depth in ("message", "fluid", "links", "bound"):
        assert collective(machine, "all-to-all", "linear", 64, 1, depth=depth).seconds == pytest.approx(63 + 2.0)
    two_level = collective(machine, "all-to-all", "two-level", 64, 1).seconds
    assert two_level == pytest.approx((3 + 0.5) + (15 + 2.0), rel=1e-6)


def test_sizes_and_ranks_of_a_sweep():
    assert swept_sizes(64 * 2**20) == [1024 * 4**power for power in range(9)]
    assert swept_sizes(5000) == [1024, 4096, 5000]
    assert swept_sizes(16) == [16]
    assert swept_counts(64) == [2, 4, 8, 16, 32, 64]
    assert swept_counts(1000) == [4, 16, 64, 256, 1000]
    assert (swept_counts(2), swept_counts(3)) == ([2], [2, 3])


def test_the_decision_table_names_the_fastest():
    study = sweep("sunway-oceanlight", "all-reduce", 512, 2**20)
    assert len({rule.algorithm for rule in study.rules}) > 1, "small vectors want few messages, large ones few bytes"
    asked = {count: Collective("sunway-oceanlight", "all-reduce", count) for count in study.counts}
    for rule in study.rules:
        for size in (rule.least, rule.most):
            times = {each["algorithm"]: each["seconds"] for each in study.at(rule.ranks, size)}
            assert times[rule.algorithm] <= min(times.values()) * (1 + 1e-9)
            assert times[rule.algorithm] == asked[rule.ranks].run(rule.algorithm, size).seconds
    for count in study.counts:
        covered = [
            size
            for rule in study.rules
            if rule.ranks == count
            for size in study.sizes
            if rule.least <= size <= rule.most
        ]
        assert covered == study.sizes


def test_a_sweep_writes_resumes_and_says_what_it_left_out(tmp_path):
    command = ["collective", *SMALL, "--sweep", "--bytes", "16KiB", "--out", tmp_path, "--json", "-"]
    first = athanor(*command)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert (found["sizes"], found["ranks"]) == ([1024, 4096, 16384], [2, 4, 8, 16, 32, 48])
    assert [(each["ranks"], each["algorithm"]) for each in found["left_out"]] == [(48, "pairwise-xor")]
    assert len(found["points"]) == 3 * (6 * 5 - 1)
    rows = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    assert (len(rows), tuple(rows[0])) == (len(found["points"]), POINT_COLUMNS)
    page = (ROOT / "docs" / "formats" / "collective.md").read_text()
    for key in [*found, *found["best"][0], *POINT_COLUMNS]:
        assert f"`{key}`" in page, key
    drawn = {
        f"{name}.{kind}" for name in ("best", *(f"ranks_{each}" for each in found["ranks"])) for kind in ("svg", "png")
    }
    assert {path.name for path in tmp_path.iterdir()} == drawn | {
        "sweep.json",
        "points.csv",
        "points.jsonl",
        "report.html",
    }
    assert "pairwise-xor on 48 ranks" in (tmp_path / "report.html").read_text()
    kept = tmp_path / "points.jsonl"
    lines = kept.read_text().splitlines(keepends=True)
    changed = json.loads(lines[0])
    changed["summary"]["seconds"] = 123.0
    kept.write_text(json.dumps(changed) + "\n" + '{"key": "cut sho')
    again = json.loads(athanor(*command).stdout)["points"]
    assert again[0]["seconds"] == 123.0, "known points are taken as they are"
    assert again[1:] == found["points"][1:]
    shown = athanor(*command[:-2]).stdout
    assert "best algorithm" in shown
    assert "left out: pairwise-xor on 48 ranks" in shown


def test_an_interrupted_sweep_keeps_its_points(tmp_path):
    command = ["collective", "--machine", "sunway-oceanlight", "--op", "all-to-all", "--ranks", "8000", "--sweep"]
    process = start([*ATHANOR, *command, "--out", tmp_path])
    kept = tmp_path / "points.jsonl"
    assert eventually(lambda: has_lines(kept, 12))
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "athanor: interrupted"
    assert len(json.loads((tmp_path / "sweep.json").read_text())["points"]) >= 12
    assert (tmp_path / "report.html").exists()


BAD = [
    (["--ranks", "1025"], "--ranks 1,025: simgrid-tree has 1,024 nodes, with room for 1,024 ranks"),
    (["--ranks", "0"], "--ranks 0: a collective needs at least one rank"),
    (["--ranks", "many"], "'many' is not a valid integer"),
    (["--algorithm", "pairwise-xor"], "48 ranks, must be a power of two; linear, pairwise-shift, bruck run on any number"),
    (["--algorithm", "two-level", "--nodes-per-supernode", "32"], "--algorithm two-level: 48 ranks are not equally many"),
    (["--algorithm", "pairwise-shfit"], "did you mean pairwise-shift?"),
    (["--op", "alltoall"], "--op alltoall: no such operation (all-to-all, "),
    (["--op", "allreduce"], "did you mean all-reduce?"),
    (["--bytes", "0"], "--bytes 0: must be one byte or more"),
    (["--bytes", "-1 MiB"], "--bytes -1 MiB: must be one byte or more"),
    (["--bytes", "nan"], "--bytes nan: must be one byte or more"),
    (["--bytes", "1 mB"], "--bytes 1 mB: must be one byte or more"),
    (["--bytes", "3 s"], '--bytes 3 s: "3 s" is a time; needs a size such as "1 MiB", or a number of bytes'),
    (["--bytes", "much"], '"much" is no quantity; needs a size'),
    (["--placement", "scater"], "--placement scater: no such placement (block, scatter); did you mean scatter?"),
    (["--network-model", "cm2"], "--network-model cm2: no such network model (maxmin, cm02, lv08); did you mean cm02?"),
    (["--depth", "mesage"], "--depth mesage: no such depth (auto, bound, links, fluid, message); did you mean message?"),
    (["--routing", "stattic"], "--routing stattic: no such routing on the pruned-fat-tree"),
    (["--ranks-per-node", "0"], "--ranks-per-node 0: must divide the 1 core groups"),
    (["--nodes-per-supernode", "0"], "--nodes-per-supernode 0: input should be greater than 0"),
    (["--machine", "simgrid-tre"], "did you mean simgrid-tree?"),
    (["--set", "fabric.tapper=1/1"], "did you mean fabric.taper?"),
    (["--sweep", "--algorithm", "linear"], "--algorithm linear: --sweep takes all of them"),
    (["--sweep", "--ranks", "1"], "--ranks 1: a sweep needs at least two"),
    (["--sweep", "--op", "barrier"], "--sweep: a barrier carries no bytes"),
    (["--out", "/proc/nowhere/out"], "--out /proc/nowhere/out: cannot be written"),
    (["--json", "/proc/nowhere/run.json"], "cannot be written"),
    (["--placement", "scatter", "--nodes-per-supernode", "36", "--set", "nodes=48"], "--placement scatter: 48 ranks, dealt out evenly over 2 supernodes, need node 60 of the 48"),
    (["--machine", ROOT / "examples/machines/torus-8x8x8.toml", "--routing", "static"], "--routing static: no such routing on the torus"),
    (["--machine", ROOT / "examples/machines/torus-8x8x8.toml", "--nodes-per-supernode", "4"], "--nodes-per-supernode 4: the torus of torus-8x8x8 has no supernodes whose size can be set"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), BAD, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_an_exit_status(arguments, message):
    done = athanor("collective", *SMALL, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_too_many_messages_are_refused_with_the_depth_that_would_do(monkeypatch):
    """Limits are lowered: 60 ranks that do not fill their supernodes stand for 96,000."""
    asked = {"machine": "simgrid-tree", "ranks": 60, "nbytes": 1024, "nodes_per_supernode": 16, "routing": "static"}
    monkeypatch.setattr(module, "MOST_PLAYED", 3000)
    with pytest.raises(
        DoesNotFit, match=r"--depth message: 3.5e\+03 messages .* at least .* hours; --depth bound only adds up"
    ):
        collective(operation="all-to-all", algorithm="pairwise-shift", depth="message", **asked)
    assert collective(operation="all-to-all", algorithm="pairwise-shift", depth="auto", **asked).depth == "bound"
    with pytest.raises(DoesNotFit, match=r"about .* GB and at least .* hours; no depth takes so many; fewer --ranks"):
        collective(operation="all-to-all", algorithm="linear", depth="bound", **asked)
    assert [each.algorithm for each in compare(operation="all-to-all", **asked).results] != []
    monkeypatch.setattr(module, "MOST_COUNTED", 0)
    monkeypatch.setattr(module, "MOST_PLAYED", 0)
    with pytest.raises(DoesNotFit):
        compare(operation="all-to-all", **asked)


def test_too_large_is_exit_status_3():
    command = [
        "--machine",
        "sunway-oceanlight",
        "--op",
        "all-to-all",
        "--algorithm",
        "pairwise-shift",
        "--ranks",
        "95999",
    ]
    done = athanor("collective", *command, "--routing", "static", "--depth", "message")
    assert done.returncode == 3
    assert "messages that differ would take at least" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_python_refuses_what_the_command_line_refuses():
    for nbytes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--bytes"):
            collective("simgrid-tree", "all-to-all", "linear", 4, nbytes)


def test_the_page_on_simgrid_prints_what_it_says():
    """Each command of the page is followed by the seconds that it prints, and SimGrid's are those of the file."""
    lines = (ROOT / "docs" / "howto" / "check-against-simgrid.md").read_text().splitlines()
    rows = [line.strip(" |").split(" | ") for line in lines if line.startswith("| `athanor collective ")]
    assert {float(row[1]) for row in rows} == {float(row["simulated_s"]) for row in ORACLE if row["ranks"] == "64"}
    for command, simgrid, simulated in rows[:3]:
        done = athanor(*shlex.split(command.strip("`"))[1:], "--json", "-")
        seconds = json.loads(done.stdout)["seconds"]
        assert f"{seconds:.9f}" == simulated.strip()
        assert seconds == pytest.approx(float(simgrid), rel=1e-6)
