"""Run files: what they say holds, flags and keywords go first, and what is wrong in them is one line."""

import itertools
import json
import tomllib

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import CATALOGUE
from athanor.workloads.plan.run_file import COMMANDS, KEYS
from athanor.workloads.results.run import VOLATILE
from support.command_line import athanor as command
from support.paths import EXAMPLES, ROOT

TEXT = """
machine = "cluster-64"
model = "moda-tiny"
[plan]
mesh = { ep = 2, dp = 4 }
jitter = 0.02
[set]
fabric.taper = "1/1"
"""


@pytest.fixture
def file(tmp_path):
    """A run file with this text."""

    def write(text=TEXT, name="run.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def totals(*arguments):
    done = command("simulate", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return {key: value for key, value in json.loads(done.stdout).items() if key not in VOLATILE}


FLAGS = ["--machine", "cluster-64", "--model", "moda-tiny", "--mesh", "ep=2,dp=4", "--set", "fabric.taper=1/1"]


def test_a_file_says_what_flags_say(file):
    assert totals(file()) == totals(*FLAGS, "--jitter", "0.02")


def test_flags_and_keywords_go_first(file):
    path = file()
    other = ["--jitter", "0", "--mesh", "ep=2,dp=2", "--set", "fabric.taper=1/2"]
    flags = totals(path, *other)
    assert flags["mesh"] == {"ep": 2, "dp": 2}
    assert flags == totals(*FLAGS, *other)
    run = athanor.simulate(path, jitter=0.0, mesh="ep=2,dp=2").summary()
    typed = athanor.simulate(
        athanor.load_machine("cluster-64").changed({"fabric.taper": "1/1"}), "moda-tiny", mesh="ep=2,dp=2"
    ).summary()
    assert run["step_seconds"] == typed["step_seconds"]


def test_a_size_on_the_command_line_puts_the_files_aside(file):
    path = file(TEXT.replace("jitter = 0.02", "tokens_per_rank = 128"))
    assert totals(path)["tokens_per_rank"] == 128
    assert totals(path, "--global-batch", "16")["tokens_per_rank"] == 16 * 64 // 8


def test_what_a_run_writes_repeats_it(tmp_path):
    """Also where machine and model are files, and the folder lies elsewhere."""
    machine = tmp_path / "mine" / "own.toml"
    machine.parent.mkdir()
    machine.write_text((CATALOGUE / "cluster-64.toml").read_text())
    arguments = ["--machine", machine, "--model", "moda-tiny", "--router", "zipf:0.7", "--seed", "3", "--zero", "1"]
    first = totals(*arguments, "--set", "nodes=32", "--out", tmp_path / "a" / "b")
    assert totals(tmp_path / "a" / "b" / "run.toml") == first


def test_every_command_takes_a_file(file):
    path = file(TEXT + '[scale]\nnodes = "4,8"\n[lower]\nstep = 1\n')
    shown = {name: command(*words, path) for name, words in {
        "lower": ["lower"], "scale": ["scale", "weak"], "memory": ["memory"],
    }.items()}  # fmt: skip
    for name, done in shown.items():
        assert done.returncode == 0, (name, done.stderr)
    assert shown["lower"].stdout == command("lower", *FLAGS, "--jitter", "0.02", "--step", "1").stdout
    inference = file(TEXT.replace("jitter = 0.02", "") + "[infer]\nprompt = 8\nnew_tokens = 2\n", "infer.toml")
    assert "2 new each" in command("infer", inference).stdout
    searched = TEXT.replace("mesh = { ep = 2, dp = 4 }", "global_batch = 64").replace("jitter = 0.02", "zero = 1")
    small = file(searched + '[search]\ngpus = 4\ntry = ["tp=1", "pp=1"]\nsimulate = 1\n', "search.toml")
    done = command("plan", small)
    assert done.returncode == 0, done.stderr
    assert "64 sequences" in done.stdout


WRONG = [
    ("machin = 'laptop'", "machin: no such key of a run file", "did you mean machine?"),
    ("machine = 3", "machine is 3: must be a text", ""),
    ("plan = 3", "plan is 3: must be a table, [plan]", ""),
    ("allow_overcommit = 'yes'", "allow_overcommit is yes: must be true or false", ""),
    ("[plan]\ntopk = 2", "plan.topk: no such option", "did you mean top_k?"),
    ("[plan]\ntop_k = 'two'", "plan.top_k two: must be a whole number", ""),
    ("[plan]\nzero = 4", "plan.zero: no such sharding", "hierarchical"),
    ("[plan]\nmesh = 'tq=2'", "plan.mesh: no such axis", "tp"),
    ("[plan]\nbalancer = 'swip'", "plan.balancer: no such balancer", "did you mean swipe?"),
    ("[plan]\nmesh = 'ep'", "plan.mesh ep: write axis=size,...", ""),
]


@pytest.mark.parametrize(("text", "message", "near"), WRONG, ids=[text for text, _, _ in WRONG])
def test_what_is_wrong_in_a_file_is_one_line(file, text, message, near):
    path = file(text)
    done = command("simulate", path, "--machine", "cluster-64", "--model", "moda-tiny")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert near in done.stderr
    assert f"{path}: " in done.stderr


def test_what_a_command_has_no_use_for_is_refused(file):
    assert "plan.mesh: athanor plan takes no mesh" in command("plan", file(), "--gpus", "4").stderr
    wrong = file(TEXT + "[scale]\nnode = '4'\n")
    assert "scale.node: no such option of athanor scale" in command("scale", "weak", wrong).stderr
    typed = file(TEXT + "[lower]\nstep = 'first'\n")
    assert "lower.step is first" in command("lower", typed).stderr


def test_a_call_without_a_model_needs_a_run_file(file):
    with pytest.raises(InputError, match="names no model"):
        athanor.simulate("cluster-64")
    with pytest.raises(InputError, match=r"run.toml: model is missing"):
        athanor.simulate(file("machine = 'cluster-64'"))
    with pytest.raises(InputError, match="model: is missing"):
        athanor.simulate(athanor.load_machine("cluster-64"))


def test_the_page_explains_every_key_and_the_example_is_read():
    page = (ROOT / "docs" / "formats" / "run-file.md").read_text()
    for key in itertools.chain(KEYS, COMMANDS):
        assert f"`{key}`" in page or f"`[{key}]`" in page, key
    example = EXAMPLES / "run.toml"
    read = athanor.read_run_file(example)
    assert read.plan.keys() == tomllib.loads(example.read_text())["plan"].keys()
