"""The command line: outputs, exit statuses, and one clear line for everything that is wrong."""

import json
import os
import signal
import subprocess
import sys

import pytest
from athanor.hardware.machine import CATALOGUE
from athanor.workloads.results.run import VOLATILE
from athanor.workloads.schedule.schedule import Schedule
from support.command_line import ATHANOR, PATIENCE, athanor, eventually, has_lines, start
from support.paths import EXAMPLES
from support.stories import explored

TINY = ["--machine", "cluster-64", "--model", "moda-tiny"]


def test_json_on_stdout_is_all_there_is_and_repeats_to_the_byte():
    first, again = (athanor("simulate", *TINY, "--jitter", "0.05", "--json", "-") for _ in range(2))
    assert first.returncode == 0
    one, other = json.loads(first.stdout), json.loads(again.stdout)
    for totals in (one, other):
        for key in VOLATILE:
            assert totals.pop(key) > 0
    assert json.dumps(one) == json.dumps(other)


def test_tables_on_stdout():
    shown = athanor("simulate", *TINY)
    assert shown.returncode == 0
    for text in ("moda-tiny", "cluster-64", "compute", "all_to_all", "Memory of the fullest rank", "nic.out"):
        assert text in shown.stdout


def test_what_the_issue_of_a_run_writes(tmp_path):
    done = athanor(
        "simulate",
        *TINY,
        "--router",
        "zipf:1.0",
        "--balancer",
        "none",
        "-o",
        tmp_path / "run.json",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["format"] == "athanor-run/2"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {f"{name}.{kind}" for name in ("breakdown", "expert_load", "memory") for kind in ("svg", "png")}
    assert written == plots | {"run.json", "run.toml", "trace.csv", "links.csv", "report.html"}


def test_a_schedule_prints_and_is_json():
    shown = athanor("lower", *TINY).stdout
    assert "gemm" not in shown.splitlines()[0]
    assert "mesh ep=2,dp=2" in shown.splitlines()[0]
    assert "all-to-all linear over ep" in shown
    schedule = Schedule.from_json(athanor("lower", *TINY, "--json", "-").stdout)
    assert str(schedule) == shown.rstrip("\n")


def test_scale_writes_resumes_and_agrees(tmp_path):
    command = ["scale", "weak", *TINY, "--nodes", "4,8,16", "--out", tmp_path / "out", "--json", "-"]
    first = athanor(*command)
    assert first.returncode == 0, first.stderr
    kept = tmp_path / "out" / "points.jsonl"
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:2]) + '{"key": "cut sho')
    again = [json.loads(athanor(*command).stdout)["points"] for _ in range(2)]
    assert again[0][:2] == json.loads(first.stdout)["points"][:2], (
        "known points are taken as they are, wall time and all"
    )
    assert again[0] == again[1], "a point that follows a line cut short is kept"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "scale.json",
        "points.csv",
        "weak_scaling.svg",
        "weak_scaling.png",
        "breakdown.svg",
        "report.html",
    } <= written
    story = explored(tmp_path / "out", "a study of weak scaling", "Machine: ", "Model: ")
    nodes = [each["nodes"] for each in again[0]]
    rows = story.parts[0].charts[0].content["rows"]
    assert [row["x"] for row in rows if row["series"] == "simulated"] == nodes


def test_an_interrupted_study_keeps_its_points_and_goes_on(tmp_path):
    out = tmp_path / "out"
    nodes = ",".join(str(count) for count in range(2400, 96001, 2400))
    command = ["scale", "weak", "--machine", "sunway-oceanlight", "--model", "moda-1.93t", "--allow-overcommit"]
    command += ["--nodes", nodes, "--out", str(out)]
    process = start([*ATHANOR, *command])
    kept = out / "points.jsonl"
    assert eventually(lambda: has_lines(kept, 2))
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "athanor: interrupted"
    assert (out / "report.html").exists()
    assert 2 <= len(kept.read_text().splitlines()) < 40


BAD = [
    (["simulate", "--machine", "cluster-46", "--model", "moda-tiny"], 2, "did you mean cluster-64?"),
    (["simulate", "--machine", "cluster-64", "--model", "moda-tinny"], 2, "did you mean moda-tiny?"),
    (["simulate", "--machine", "none.toml", "--model", "moda-tiny"], 2, "none.toml: no such file"),
    (["simulate", *TINY, "--balancer", "swip"], 2, "--balancer swip: no such balancer (none, capacity, padded, swipe, even); did you mean swipe?"),
    (["simulate", *TINY, "--balancer", "capacity:-1"], 2, "takes a capacity factor above zero"),
    (["simulate", *TINY, "--router", "zip:1"], 2, "--router zip:1: no such router"),
    (["simulate", *TINY, "--precision", "O7"], 2, "--precision O7: no such policy"),
    (["simulate", *TINY, "--placement", "modda"], 2, "did you mean moda?"),
    (["simulate", *TINY, "--zero", "4"], 2, "--zero 4: no such sharding (0, 1, 2, 3, shard-grad-op, ++, hierarchical)"),
    (["simulate", *TINY, "--depth", "deep"], 2, "--depth deep: no such choice (auto, bound, links, fluid, message)"),
    (["simulate", *TINY, "--mesh", "ep=2;dp=2"], 2, "--mesh ep=2;dp=2"),
    (["simulate", *TINY, "--mesh", "ep=0,dp=2"], 2, "at least one rank"),
    (["simulate", *TINY, "--mesh", "tq=2"], 2, "no such axis (dp, fsdp, ep, cp, tp, pp)"),
    (["simulate", *TINY, "--mesh", "ep=4,dp=64"], 2, "256 ranks exceed cluster-64"),
    (["simulate", *TINY, "--mesh", "ep=3,dp=2"], 2, "ep=3 does not divide the 4 experts of moda-tiny"),
    (["simulate", *TINY, "--mesh", "ep=2,dp=17", "--placement", "ep=supernode,dp=node"], 2, "exceed the 16 nodes of a supernode"),
    (["simulate", *TINY, "--top-k", "5"], 2, "--top-k 5: moda-tiny has 4 experts a layer"),
    (["simulate", *TINY, "--top-k", "0"], 2, "--top-k 0: must be above 0"),
    (["simulate", *TINY, "--tokens-per-rank", "-1"], 2, "--tokens-per-rank -1"),
    (["simulate", *TINY, "--tokens-per-rank", "many"], 2, "'many' is not a valid integer"),
    (["simulate", *TINY, "--jitter", "2"], 2, "--jitter 2.0: must be from 0 to below 1"),
    (["simulate", *TINY, "--ranks-per-node", "3"], 2, "must divide the 2 core groups"),
    (["simulate", *TINY, "--set", "fabric.taper"], 2, "write KEY=VALUE"),
    (["simulate", *TINY, "--set", "fabric.tapper=1/1"], 2, "did you mean fabric.taper?"),
    (["simulate", *TINY, "--jittr", "0.1"], 2, "--jitter"),
    (["simulate", "--machine", "cluster-64"], 2, "--model"),
    (["simulate", *TINY, "--out", "/proc/nowhere/out"], 2, "--out /proc/nowhere/out: cannot be written"),
    (["simulate", *TINY, "--json", "/proc/nowhere/run.json"], 2, "cannot be written"),
    (["simulate", "--machine", "sunway-oceanlight", "--model", "moda-14.5t", "--zero", "0"], 3, "--zero hierarchical needs"),
    (["simulate", "--machine", "cluster-64", "--model", "moda-1.93t"], 2, "96,000 ranks exceed cluster-64"),
    (["simulate", "--machine", "cluster-64", "--model", "moda-1.93t", "--mesh", "dp=4"], 3, "moda-1.93t does not fit cluster-64"),
    (["simulate", *TINY, "--placement", "ep=node,ep=supernode"], 2, "each axis once"),
    (["simulate", *TINY, "--placement", "ep=node,dp"], 2, "write AXIS=LEVEL,..."),
    (["simulate", *TINY, "--balancer", "capacity:inf"], 2, "takes a capacity factor above zero"),
    (["simulate", *TINY, "--router", "zipf:steep"], 2, "takes an exponent from 0 to 20"),
    (["simulate", *TINY, "--tokens-per-rank", "700", "--micro-batch", "1"], 2, "--micro-batch 1: 64 tokens do not divide the 700"),
    (["simulate", *TINY, "-o", "/proc/nowhere/run.json"], 2, "cannot be written"),
    (["lower", *TINY, "--step", "-1"], 2, "--step -1: steps count from 0"),
    (["lower", *TINY, "--json", "/proc/nowhere/schedule.json"], 2, "cannot be written"),
    (["fit", "bagualu", "-o", "/proc/nowhere/machine.toml"], 2, "cannot be written"),
    (["scale", "weak", *TINY, "--nodes", "4,x"], 2, "--nodes 4,x"),
    (["scale", "weak", *TINY, "--nodes", "3"], 2, "no multiple"),
    (["scale", "sideways", *TINY], 2, "sideways"),
    (["reproduce", "bagula"], 2, "bagualu"),
    (["show", "machine", "sunway"], 2, "no such machine"),
    (["list", "planets"], 2, "planets"),
    (["frobnicate"], 2, "frobnicate"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_an_exit_status(arguments, status, message, tmp_path):
    done = athanor(*arguments, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_wrong_unit_in_a_file(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text((CATALOGUE / "cluster-64.toml").read_text().replace('"307.2 GB/s"', '"307.2 GB"'))
    done = athanor("simulate", "--machine", path, "--model", "moda-tiny")
    assert done.returncode == 2
    assert done.stderr == (
        f'athanor: {path}: core_group.memory_bandwidth is "307.2 GB": "307.2 GB" is a size; needs a bandwidth such as "51.2 GB/s"\n'
    )


def test_a_study_too_large_for_this_computer(tmp_path):
    path = tmp_path / "vast.toml"
    path.write_text((CATALOGUE / "cluster-64.toml").read_text().replace("nodes = 64", "nodes = 1000000000000"))
    done = athanor("simulate", "--machine", path, "--model", "moda-tiny", "--mesh", "ep=4,dp=250000000000")
    assert done.returncode == 3
    assert "simulating 1,000,000,000,000 ranks needs about" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_machine_without_sources_is_warned_about(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text((CATALOGUE / "cluster-64.toml").read_text().split("[sources]")[0])
    totals = json.loads(athanor("simulate", "--machine", path, "--model", "moda-tiny", "--json", "-").stdout)
    assert any("gives no source for nodes" in warning for warning in totals["warnings"])


@pytest.mark.parametrize(
    "what",
    [
        "machines",
        "models",
        "axes",
        "placements",
        "routers",
        "balancers",
        "precisions",
        "collectives",
        "fabrics",
        "network-models",
    ],
)
def test_list(what):
    done = athanor("list", what)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize(
    ("what", "name"), [("machine", "sunway-oceanlight"), ("machine", "cluster-64"), ("model", "moda-174t")]
)
def test_show_has_a_source_for_every_number(what, name):
    rows = json.loads(athanor("show", what, name, "--json", "-").stdout)
    assert all(row["source"] for row in rows)
    text = athanor("show", what, name).stdout
    assert rows[0]["key"] in text


def test_help_needs_no_heavy_library():
    """The list of all commands, each loaded with its options, needs click alone."""
    script = """
import sys
from athanor.cli import main
sys.argv = ["athanor", "--help"]
try:
    main()
finally:
    heavy = ("numpy", "pandas", "matplotlib", "pydantic", "rich", "simpy", "scipy")
    print("loaded:", [name for name in heavy if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout.splitlines()[-1] == "loaded: []", shown.stderr
    assert athanor("--help").returncode == 0
    assert athanor("--version").stdout.startswith("athanor")


def test_a_reader_that_closes_early_is_no_error():
    command = f"{' '.join(ATHANOR)} list models | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_print_what_they_say(path):
    """Each example ends with the output that it prints, as comments."""
    expected = [line[4:] for line in path.read_text().splitlines() if line.startswith("# > ")]
    shown = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=PATIENCE)
    assert shown.returncode == 0, shown.stderr
    assert expected and shown.stdout.splitlines() == expected
