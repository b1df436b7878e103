"""Published runs are data: what files of runs say, what they refuse, and that texts decide nothing."""

import json

import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.reports.published.read_runs import RUNS, published_runs, read_runs
from athanor.reports.published.run import UNITS
from athanor.reports.studies.accuracy.cases import LeftOut, case_of, require_fit, setting_of
from athanor.reports.studies.accuracy.libraries import libraries
from athanor.reports.studies.accuracy.validate import validate
from support.command_line import athanor

PUBLISHED = published_runs()

HEAD = """
publication = "mine"
machine = "eos-h100"
library = "megatron-core"
metric = "iteration_time"
unit = "s"
plan = { global_batch = 16, micro_batch = 1, zero = "1" }
"""

RUN = """
[[run]]
id = "a"
model = "llama3-8b"
plan = { mesh = "dp=8" }
value = 1.5
"""


def read(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return read_runs(file)


def the_one(tmp_path, text=HEAD + RUN):
    (run,) = read(tmp_path, text)
    return run


def test_a_run_has_what_its_file_says_and_its_own_first(tmp_path):
    more = '\n[[run]]\nid = "b"\nmodel = "llama3-8b"\nplan = { mesh = "dp=4,tp=2", zero = "2" }\nset = { "node.interfaces" = 4 }\nvalue = 2\n'
    first, second = read(tmp_path, HEAD + RUN + more)
    assert first.plan == {"global_batch": 16, "micro_batch": 1, "zero": "1", "mesh": {"dp": 8}}
    assert second.plan["zero"] == "2" and second.plan["global_batch"] == 16
    assert (first.source, first.publication, second.value) == ("mine", "mine", 2)
    assert second.machine_used.node.interfaces == 4 and first.machine_used.node.interfaces == 8
    assert setting_of(case_of(second)).plan.tensor_overlap and not setting_of(case_of(first)).plan.tensor_overlap


def test_machines_and_models_of_the_file(tmp_path):
    """Their keys change those of the catalogue; a model without a base has all of its keys in the file."""
    tables = """
[machines.mine]
base = "eos-h100"
set = { "node.interface_bandwidth" = "25 GB/s" }
assumed = ["half of the cards' rate"]

[models.cut]
base = "llama3-8b"
layers = 2

[models.own]
layers = 2
hidden = 1024
heads = 8
ffn_hidden = 4096
vocabulary = 50304
seq_len = 1024
"""
    text = HEAD.replace('machine = "eos-h100"', 'machine = "mine"') + tables + RUN.replace("llama3-8b", "cut")
    run = the_one(tmp_path, text)
    assert (run.machine, run.base, run.model) == ("eos-h100", "llama3-8b", "cut")
    assert run.machine_used.node.interface_bandwidth == 25e9
    assert run.model_used.layers == 2 and run.model_used.gated
    assert run.assumed[0] == "half of the cards' rate"
    assert the_one(tmp_path, text.replace('model = "cut"', 'model = "own"')).model_used.hidden == 1024


def test_files_of_machines_lie_beside_the_runs(tmp_path):
    from athanor.hardware.machine import CATALOGUE

    (tmp_path / "own.toml").write_text((CATALOGUE / "selene.toml").read_text())
    run = the_one(tmp_path, (HEAD + RUN).replace('"eos-h100"', '"own.toml"'))
    assert run.machine_used.core_group.accelerator == "A100"
    with pytest.raises(InputError, match=r"run a: machine other\.toml: no such file"):
        the_one(tmp_path, (HEAD + RUN).replace('"eos-h100"', '"other.toml"'))


def test_no_text_decides_what_is_simulated(tmp_path):
    """F1: cards, kernels, degrees and batches in texts for people change nothing."""
    plain = the_one(tmp_path)
    words = (
        'notes = "DGX-H100 (8x50GB/s IB), FlashAttention 2, CP2, AsyncTP, 4k tokens per GPU per micro-step, hw FLOPs"\n'
    )
    text = (HEAD + RUN).replace('"mine"', '"Korthikanti, BigScience, DeepSpeed, alpa"')
    told = the_one(tmp_path, text + words + 'source = "torchtitan (1xIB)"\nat = "line 7"\n')
    one, other = (setting_of(case_of(run)) for run in (plain, told))
    assert one.machine == other.machine and one.model == other.model and one.plan == other.plan
    assert validate([plain]).outcomes[0].prediction.value == validate([told]).outcomes[0].prediction.value


def test_what_is_off_by_more_than_a_factor_is_named_with_its_reason(tmp_path):
    from athanor.reports.studies.accuracy.validate import FAR, Accuracy, AccuracyOutcome
    from athanor.reports.tables.accuracy_markdown import far

    told = the_one(tmp_path, HEAD + RUN + 'explained = "its host was busy"\n')
    (outcome,) = validate([told]).outcomes
    seconds = outcome.prediction.value
    rows = [told.model_copy(update={"id": name, "value": seconds * part}) for name, part in FACTORS.items()]
    found = Accuracy([AccuracyOutcome(row, outcome.prediction) for row in rows]).plain()["far"]
    assert [each["id"] for each in found] == ["slower", "faster"] and FAR == 1.6
    assert {each["explained"] for each in found} == {"its host was busy"}
    text = far({"far": found}, lambda columns, rows, of_text: [str(row) for row in rows])
    assert text == [str(("slower, faster", "-41%, +67%", "its host was busy"))]
    assert far({}, lambda columns, rows, of_text: [str(row) for row in rows]) == []


FACTORS = {"slow": 1.59, "slower": 1.7, "fast": 1 / 1.59, "faster": 0.6}


def test_the_library_says_what_the_plan_does_not(tmp_path):
    """F1: a run of 2025 on A100 has the kernels of its library, and its own plan comes first."""
    text = (HEAD + RUN).replace("eos-h100", "selene")
    core = next(each for each in libraries() if each.name == "megatron-core")
    assert case_of(the_one(tmp_path, text)).options["attention"] == core.plan["attention"] != "unfused"
    own = text.replace('"dp=8"', '"dp=8", attention = "unfused", overlap = "none"')
    options = case_of(the_one(tmp_path, own)).options
    assert (options["attention"], options["overlap"]) == ("unfused", "none")
    none = case_of(the_one(tmp_path, text.replace('library = "megatron-core"', "")))
    assert any("no library named" in each for each in none.assumed)


def test_libraries_change_machines_that_have_what_they_name():
    tpu = load_machine("tpu-v3")
    for each in libraries():
        assert each.source
        each.on(load_machine("selene"))
        if not each.set or all("tiles" in key or "framework" in key for key in each.set):
            assert each.on(tpu) == tpu
    used = {run.library for run in PUBLISHED.values() if run.library}
    assert used <= {each.name for each in libraries()}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"eos-h100"', '"eos-h1000"', r"run a: machine eos-h1000: no such machine .*did you mean eos-h100"),
        ('"llama3-8b"', '"llama3-9b"', r"run a: model llama3-9b: no such model .*did you mean"),
        ('mesh = "dp=8"', "", r'run a: plan.mesh is missing; needs the degrees, such as "pp=4,dp=8,tp=8"'),
        ('machine = "eos-h100"', "", r"run a: machine is missing; needs a name of the catalogue"),
        ('model = "llama3-8b"', "", r"run a: model is missing"),
        ("value = 1.5", "value = -2", r"run a: value is -2: .*greater than 0"),
        ("value = 1.5", 'value = 1.5\nid2 = "x"', r"run a: id2 is an unknown key"),
        ('mesh = "dp=8"', 'mesh = "dp=8", recomputed = "full"', r"plan.recomputed: no such option.*recompute"),
        ('mesh = "dp=8"', 'mesh = "dp=8", attention = "flush"', r"run a: plan.attention: "),
        ('metric = "iteration_time"', 'metric = "beauty"', r"metric beauty is none of iteration_time"),
        ('unit = "s"', 'unit = "hours"', r"unit hours: iteration_time is in s or ms"),
        ("[[run]]", "[run]", r"has no runs; each is a table \[\[run\]\]"),
        ('id = "a"', 'id = "a"\nshape = { heads = 5 }', r"run a: model llama3-8b: "),
        ("value = 1.5", 'value = 1.5\nset = { "node.wheels" = 4 }', r"run a: .*node\.wheels"),
    ],
)
def test_files_that_say_too_little_or_what_there_is_not_are_refused(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, (HEAD + RUN).replace(old, new))


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no-such\.toml: no such file"):
        read_runs(tmp_path / "no-such.toml")
    with pytest.raises(InputError, match=r"has no files of runs"):
        read_runs(tmp_path)
    with pytest.raises(InputError, match=r"run a stands there twice"):
        read(tmp_path, HEAD + RUN + RUN)


def test_the_command_refuses_with_one_line(tmp_path):
    (tmp_path / "bad.toml").write_text(HEAD + RUN.replace('mesh = "dp=8"', ""))
    done = athanor("validate", "--data", tmp_path / "bad.toml", "--out", tmp_path / "out")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "plan.mesh is missing" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_plan_that_cannot_hold_is_not_the_one_that_ran(tmp_path):
    """F2: 671 billion parameters on each of 256 ranks."""
    text = (HEAD + RUN).replace("llama3-8b", "deepseek-v3").replace("dp=8", "dp=256").replace("= 16", "= 256")
    (told,) = validate([the_one(tmp_path), the_one(tmp_path, text)]).outcomes[1:]
    assert told.prediction is None
    assert "GB of its 80 GB: the plan that ran is another one" in told.reason


@pytest.mark.parametrize("name", sorted(name for name, run in PUBLISHED.items() if run.plan.get("mesh"))[::4])
def test_published_plans_could_have_run(name):
    require_fit(setting_of(case_of(PUBLISHED[name])))


def test_contradictions_leave_a_run_out(tmp_path):
    for old, new, reason in (
        ("value = 1.5", "value = 1.5\naccelerators = 9", "dp=8 is 8, not the 9 of accelerators"),
        ("= 16", "= 4", "plan.global_batch 4 is less than its 8 replicas"),
        ("micro_batch = 1", "micro_batch = 3", "micro"),
        ('"megatron-core"', '"megatron-cure"', "library megatron-cure: no such library"),
    ):
        with pytest.raises(LeftOut, match=reason):
            setting_of(case_of(the_one(tmp_path, (HEAD + RUN).replace(old, new))))


def test_files_are_records_of_one_publication_each():
    files = {path.stem: read_runs(path) for path in RUNS.glob("*.toml")}
    groups = {name: {run.publication for run in runs} for name, runs in files.items()}
    assert all(len(group) == 1 for group in groups.values())
    assert len(set().union(*groups.values())) == len(groups)
    assert sum(map(len, files.values())) == len(PUBLISHED)


def test_every_run_has_a_source_a_value_and_a_prediction_or_a_reason():
    for run in PUBLISHED.values():
        assert run.source and run.unit and run.value > 0
        assert run.left_out or run.metric in UNITS
        assert run.left_out or run.machine_used
        json.dumps(run.plan)


def test_no_model_stands_on_both_sides_of_a_publication_that_is_split_by_model():
    sides = {}
    for run in PUBLISHED.values():
        if run.publication == "SimuMax":
            sides.setdefault(run.model, set()).add(run.fitted)
    assert all(len(side) == 1 for side in sides.values())
    assert {True, False} == set().union(*sides.values())
