"""Recorded traces of routing, replayed."""

import json

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.loads.token_assignment import decisions
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.token_counts import scaled_counts
from athanor.workloads.routing.trace import Trace
from hypothesis import given
from hypothesis import strategies as st

COUNTS = {(7, 0): [400, 100, 100, 200], (7, 1): [200, 200, 200, 200], (9, 0): [10, 390, 0, 400], (9, 1): [1, 2, 3, 4]}


def csv(rows=COUNTS):
    return "step,layer,expert,tokens\n" + "".join(
        f"{step},{layer},{expert},{count}\n"
        for (step, layer), each in rows.items()
        for expert, count in enumerate(each)
    )


def lines(rows=COUNTS):
    return "".join(
        json.dumps({"step": step, "layer": layer, "tokens": each}) + "\n" for (step, layer), each in rows.items()
    )


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "trace"
        path.write_text(text)
        return str(path)

    return write


def loads(path, **options):
    options = {"mesh": {"ep": 4, "dp": 2}, "balancer": "none", "tokens_per_rank": 200, **options}
    return LoadModel(Setting.of("cluster-64", "moda-tiny", {**options, "router": f"trace:{path}"}))


@pytest.mark.parametrize(
    "text", [csv(), lines(), "# recorded\n\n" + csv({key: COUNTS[key] for key in reversed(COUNTS)})]
)
def test_steps_are_replayed_in_order_and_again(written, text):
    """The plan's 800 tokens of a group are as many as the trace has in its first steps."""
    model = loads(written(text), top_k=1)
    for step, layer, expected in ((0, 0, (7, 0)), (0, 1, (7, 1)), (1, 0, (9, 0)), (2, 0, (7, 0)), (5, 1, (9, 1))):
        found = model.of_experts(layer, step, 0)
        recorded = np.array(COUNTS[expected]) * 800 / sum(COUNTS[expected])
        assert found.tolist() == [[recorded.tolist()] * 2]
        assert model.chances(layer, step)[0] == pytest.approx(recorded / 800)
        home = decisions(model, layer, step, 0, 1)
        assert np.bincount(home.reshape(-1), minlength=4).tolist() == recorded.tolist()


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40), st.integers(1, 6), st.integers(1, 999))
def test_counts_are_scaled_and_dealt_to_choices(recorded, top_k, tokens):
    recorded = np.array(recorded)
    if recorded.max() * top_k > recorded.sum() or not recorded.any():
        return
    found = scaled_counts(recorded, top_k, tokens)
    assert (found.sum(axis=1) == tokens).all()
    assert np.abs(found.sum(axis=0) - recorded * top_k * tokens / recorded.sum()).max() < 1
    assert (found.max(axis=0) - found.min(axis=0)).max() <= 1
    assert found.sum(axis=0).max() <= tokens


def test_step_times_follow_the_trace(written):
    even, uneven = [100] * 4, [370, 10, 10, 10]
    path = written(csv({(0, 0): even, (0, 1): even, (1, 0): uneven, (1, 1): uneven, (2, 0): even, (2, 1): even}))
    run = athanor.simulate(
        "cluster-64", "moda-tiny", mesh={"ep": 4}, top_k=1, balancer="none", router=f"trace:{path}", steps=3
    )
    seconds = run.to_frame().groupby("step")["end"].max()
    assert seconds[0] == seconds[2] < seconds[1]
    assert run.summary()["load_balance"]["wanted_max_over_mean"] == pytest.approx(3.7, rel=1e-3)


@pytest.mark.parametrize("prototypes", [2, 4])
def test_each_prototype_has_a_choice_of_every_token(written, prototypes):
    path = written(csv({key: COUNTS[key] for key in ((7, 0), (7, 1))}))
    found = loads(path, prototypes=prototypes, top_k=None).of_experts(0, 0, 0)[:, 0]
    assert (found.sum(axis=1) == 800).all()
    if prototypes == 2:
        assert found.tolist() == [[640, 160, 0, 0], [0, 0, 267, 533]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; needs step, layer, expert, tokens as CSV, or JSON lines"),
        ("step,layer,expert,tokens\n", "has no row"),
        ("step,layer,expert\n0,0,0\n", ", line 1: has no column tokens (step, layer, expert, tokens)"),
        ("step,layer,expert,tokens\n0,0,0,1.5\n", ", line 2: tokens: '1.5', must be a whole number from 0 on"),
        ("step,layer,expert,tokens\n0,0,-1,1\n", ", line 2: expert: '-1', must be a whole number"),
        ("step,layer,expert,tokens\n0,0,0\n", ", line 2: has 3 values, the header names 4"),
        ("step,layer,expert,tokens\n0,0,0,\n", ", line 2: tokens: '', must be"),
        (csv() + "7,0,1,5\n", ", line 18: step 7, layer 0, expert 1 stands here again"),
        (csv() + "8,0,3,5\n", "has no expert 0 of step 8, layer 0; needs 0 to 3"),
        (csv({(0, 0): [1, 1, 1, 1], (0, 1): [0, 0, 0, 0]}), "step 0, layer 1: no expert has a token"),
        (lines() + "{\n", ", line 5: no JSON: "),
        (lines() + "[1]\n", ', line 5: must be {"step": 0, "layer": 0, "tokens": [tokens of each expert]}'),
        (lines() + '{"step": 1, "layer": true, "tokens": [1]}\n', ", line 5: layer: True, must be a whole number"),
        (csv({(0, 0): [1] * 5, (0, 1): [1] * 5}), "has 5 experts a layer, the model has 4"),
        (csv({(0, 0): [1] * 4, (0, 2): [1] * 4}), "has no layer 1; layers count from 0 and the model has experts in 2"),
        (
            csv({(3, 0): [1] * 4, (3, 1): [9, 1, 1, 1]}),
            "step 3, layer 1: an expert has 75.0% of the tokens; each goes to it",
        ),
    ],
)
def test_wrong_traces_are_one_line(written, text, message):
    path = written(text)
    with pytest.raises(InputError) as caught:
        loads(path, top_k=2)
    assert str(caught.value).startswith(f"--router trace:{path}{message if message[0] == ',' else ': ' + message}")
    assert "\n" not in str(caught.value)


def test_a_trace_leaves_no_room_for_drift(written):
    with pytest.raises(InputError, match=r"says itself how loads move, --drift 0\.5 cannot"):
        loads(written(csv()), top_k=1, drift=0.5)
    with pytest.raises(InputError, match="cannot be read"):
        Trace.load("nowhere.csv")
