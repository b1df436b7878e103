"""Traces that are made when they are asked for."""

import gc
import json
import pickle
import tracemalloc

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.sim.engine import step_engine
from athanor.workloads.model.model import load_model
from athanor.workloads.results.run import Run
from athanor.workloads.results.trace import Rows

MODEL = load_model("moda-1.93t").model_copy(update={"layers": 2, "experts": 16, "plan": {}})
OPTIONS = {"router": "zipf:1.0", "balancer": "none", "mesh": "ep=8,dp=2"}


def rows_of(**more):
    return athanor.simulate("sunway-oceanlight", MODEL, **OPTIONS, jitter=0.1, drift=0.5, **more)


def test_steps_that_are_told_later_are_the_steps_that_were_simulated():
    run, first = rows_of(steps=3), rows_of(steps=1)
    assert isinstance(run.trace, Rows)
    assert [row for row in run.trace if row.step == 0] == first.trace
    ends = [max(row.end for row in run.trace if row.step == step) for step in range(3)]
    assert len(set(ends)) == 3
    assert max(ends) <= run.summary()["step_seconds"] * 3


def test_rows_are_made_once_and_travel_as_a_list():
    made = []

    def make():
        made.append(1)
        return iter(rows)

    rows = list(rows_of(steps=1).trace)
    later = Rows(make)
    assert not made
    assert (len(later), later[0], later[-2:], list(later)) == (len(rows), rows[0], rows[-2:], rows)
    assert pickle.loads(pickle.dumps(later)) == rows
    assert made == [1]


def test_a_longer_run_takes_no_more_memory():
    peaks = []
    for steps in (4, 24):
        gc.collect()
        tracemalloc.start()
        told = rows_of(steps=steps)
        gc.collect()
        peaks.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        del told
    rows = len(rows_of(steps=1).trace)
    assert (
        peaks[1] - peaks[0] < 20 * rows * 100
    )  # a row takes more than three times these bytes; figures take a few thousand


def test_rows_that_are_kept_step_by_step_are_those_made_anew(tmp_path, monkeypatch):
    anew = rows_of(steps=3)
    steps = []
    run = step_engine.Engine.run
    monkeypatch.setattr(step_engine.Engine, "run", lambda engine: steps.append(engine) or run(engine))
    kept = rows_of(steps=3, trace_folder=tmp_path)
    kept.save(tmp_path / "kept.run")
    assert len(steps) == 3  # nothing was simulated twice
    assert [each.name for each in tmp_path.iterdir()] == ["kept.run"]
    assert list(kept.trace) == list(anew.trace) and len({row.step for row in kept.trace}) == 3
    assert (tmp_path / "kept.run").read_text() == json.dumps(kept.to_plain()) + "\n"
    assert Run.load(tmp_path / "kept.run").trace == list(anew.trace)


def test_rows_that_cannot_be_kept_are_an_error_of_the_input(tmp_path):
    with pytest.raises(InputError, match="no trace can be kept there"):
        rows_of(steps=3, trace_folder=tmp_path / "missing")
