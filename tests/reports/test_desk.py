"""A reproduction's desk: the same results whoever works, each told and kept once, and nothing that is known made again."""

import json

from athanor.cli import cli
from athanor.hardware.machine import load_machine
from athanor.reports.published.read_runs import published_runs
from athanor.reports.studies.accuracy.validate import validate
from athanor.reports.studies.claims import Claim
from athanor.reports.studies.reproductions import tensor2d
from athanor.reports.studies.reproductions.desk import Desk, inference, prediction, step, whole_run
from athanor.reports.studies.reproductions.facts import Facts
from athanor.reports.studies.reproductions.record import Reproduction
from athanor.sim.workers import Here
from athanor.workloads.results.run import VOLATILE, Run
from click.testing import CliRunner


class Counting:
    """Workers that count what they are asked."""

    def __init__(self):
        self.asked = 0

    def results(self, call, tasks):
        self.asked += len(tasks)
        yield from Here().results(call, tasks)


def lasting(plain):
    return {key: value for key, value in plain.items() if key not in VOLATILE}


MACHINE = load_machine("cluster-64")
PROMPT = {"prompt": 8, "new_tokens": 2, "allow_overcommit": True}


def test_results_stand_by_label_and_equal_tasks_are_done_once():
    told, kept, crew = [], {}, Counting()
    desk = Desk(told.append, crew, {}, lambda key, result: kept.update({key: result}))
    tasks = {
        ("a", 1): (MACHINE, "moda-tiny", {}),
        "b": (MACHINE, "moda-tiny", {"seed": 1}),
        "c": (MACHINE, "moda-tiny", {}),
    }
    found = desk.each(step, tasks, lambda label: f"step {label}")
    assert list(found) == list(tasks)
    assert found["c"] is found["a", 1]
    assert lasting(found["b"]) != lasting(found["c"])
    assert (crew.asked, len(kept), told) == (2, 2, ["step ('a', 1)", "step b"])
    again = Desk(crew=crew, known=json.loads(json.dumps(kept))).each(step, tasks)
    assert crew.asked == 2
    assert json.loads(json.dumps([*found.values()])) == [*again.values()]


def test_what_decides_a_result_decides_its_key():
    kept = {}
    desk = Desk(keep=lambda key, result: kept.update({key: result}))
    step_, other = (MACHINE, "moda-tiny", {}), (MACHINE.changed({"nodes": 32}), "moda-tiny", {})
    for call, task in ((step, step_), (whole_run, step_), (step, other), (inference, (MACHINE, "moda-tiny", PROMPT))):
        desk.each(call, {"one": task})
    assert len(kept) == 4


def test_runs_and_predictions_come_as_they_would_from_a_file():
    facts = Facts("megatron")
    run = facts.runs("recomputation")[0]
    desk = Desk()
    value, summary = desk.each(prediction, {"one": (run, load_machine("selene"), True)})["one"]
    assert value > 0 and summary["step_seconds"] > 0
    plain = desk.each(whole_run, {"run": (MACHINE, "moda-tiny", {})})["run"]
    assert plain == json.loads(json.dumps(plain))
    assert Run.from_plain(plain, "run").summary() == plain["summary"]


def test_an_interrupted_reproduction_goes_on_where_it_was(tmp_path, monkeypatch):
    """What was finished before the interruption is not worked out again, and shows in what is found."""

    def build(desk):
        first = desk.each(step, {"first": (MACHINE, "moda-tiny", {})})["first"]
        if not desk.known.get("told"):
            desk.known["told"] = {}
            raise KeyboardInterrupt
        claim = Claim("a claim", 1.0, first["step_seconds"], "predicted", "a source")
        return Reproduction("tensor2d", "a title", MACHINE, [claim])

    monkeypatch.setattr(tensor2d, "build", build)
    command = ["reproduce", "tensor2d", "--jobs", "1", "--out", str(tmp_path), "--json", "-"]
    assert CliRunner().invoke(cli, command).exit_code == 1
    kept = tmp_path / "points.jsonl"
    entry = json.loads(kept.read_text())
    entry["summary"]["step_seconds"] = 123.0
    kept.write_text("".join(json.dumps(each) + "\n" for each in (entry, {"key": "told", "summary": {"was": 1}})))
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["claims"][0]["simulated"] == 123.0
    assert CliRunner().invoke(cli, [*command[:2], "--jobs", "0"]).exit_code != 0


def test_steps_that_rows_share_are_simulated_once_and_known_ones_not_again():
    """And one that is refused has the same reason then."""
    first, last = (published_runs()[name] for name in ("kort_22B_full", "kort_22B_selective"))
    rows = [first, first.model_copy(update={"id": "again"}), last]
    kept = {}
    found = validate(rows, keep=lambda key, made: kept.update({key: made})).plain()
    assert len(kept) == 2
    assert found["rows"][0]["predicted"] == found["rows"][1]["predicted"]
    doubled = {key: {**made, "step_seconds": 2 * made["step_seconds"]} for key, made in kept.items()}
    twice = validate(rows, known=doubled).plain()["rows"]
    assert [each["predicted"] for each in twice] == [2 * each["predicted"] for each in found["rows"]]
    refused = validate(rows, known=kept | {next(iter(kept)): {"refused": "too large"}}).plain()["rows"]
    assert [each["reason"] for each in refused] == ["too large", "too large", None]
