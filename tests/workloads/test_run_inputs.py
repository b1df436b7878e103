"""A Run keeps the machine and the model that it is of, and a file of it is data."""

import json
import sys

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.workloads.model.model import load_model
from athanor.workloads.results.run import Run
from athanor.workloads.results.run_inputs import RunInputs


@pytest.mark.parametrize(
    ("machine", "model"), [("cluster-64", "gpt-tiny"), ("fugaku", "moda-tiny"), ("dgx-b200", "deepseek-v3")]
)
def test_they_are_read_back_equal(machine, model):
    given = load_machine(machine), load_model(model)
    read = RunInputs.read(json.loads(json.dumps(RunInputs(given).plain())), "run.json")
    assert (read.machine, read.model) == given


def test_a_saved_run_has_them_and_can_be_made_again(tmp_path):
    machine = load_machine("cluster-64").changed({"node.interfaces": 2})
    run = athanor.simulate(machine, "gpt-tiny", mesh={"dp": 4}, tokens_per_rank=512)
    run.save(tmp_path / "run.json")
    read = Run.load(tmp_path / "run.json")
    assert read.inputs.machine == machine
    again = athanor.simulate(
        read.inputs.machine, read.inputs.model, **{k: v for k, v in read.plan.items() if v is not None}
    )
    assert again.totals.step_seconds == run.totals.step_seconds
    plain = json.loads((tmp_path / "run.json").read_text())
    del plain["inputs"]
    assert Run.from_plain(plain, "older").inputs is None
    for wrong in ([], {"machine": "x"}, {"machine": 1, "model": "y"}):
        with pytest.raises(InputError, match=r"r\.json: inputs must be the texts"):
            Run.from_plain({**plain, "inputs": wrong}, "r.json")
    with pytest.raises(InputError, match=r"r\.json: inputs\.machine: not a TOML file"):
        _ = Run.from_plain({**plain, "inputs": {"machine": "= =", "model": ""}}, "r.json").inputs.machine


def test_nobodys_code_is_imported_for_a_file_of_results(tmp_path, monkeypatch):
    (tmp_path / "mischief.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    model = RunInputs((load_machine("cluster-64"), load_model("gpt-tiny"))).plain()["model"]
    for text in (
        model + '\n[recurrent.x]\nkind = "mischief:Class"\n',
        model.replace("heads", 'norm = "mischief:Class"\nheads', 1),
    ):
        with pytest.raises(InputError):
            _ = RunInputs(("", text), "run.json").model
    machine = RunInputs((load_machine("cluster-64"), load_model("gpt-tiny"))).plain()["machine"]
    with pytest.raises(InputError):
        _ = RunInputs((machine.replace('kind = "', 'kind = "mischief:', 1), ""), "run.json").machine
    assert "mischief" not in sys.modules
