"""Traces that are made when they are asked for."""

import gc
import pickle
import tracemalloc

import athanor
from athanor.workloads.model.model import load_model
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
