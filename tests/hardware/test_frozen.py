"""What machines, models and plans hold cannot be changed, and can be copied, pickled and written all the same."""

import copy
import json
import pickle

import pytest
from athanor.hardware.frozen_dict import FrozenDict, frozen
from athanor.hardware.machine import load_machine
from athanor.workloads.model.model import load_model
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.plan.setting import Setting

TABLE = {"a": {"b": [1, {"c": 2}]}, "d": "text"}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 1),
        lambda d: d.__delitem__("a"),
        lambda d: d.__ior__({"a": 1}),
        lambda d: d.clear(),
        lambda d: d.pop("a"),
        lambda d: d.popitem(),
        lambda d: d.setdefault("e", 1),
        lambda d: d.update(a=1),
    ],
)
def test_nothing_changes_a_frozen_dictionary(change):
    held = frozen(TABLE)
    with pytest.raises(TypeError, match="cannot be changed"):
        change(held)
    assert held == frozen(TABLE) and held["a"]["b"] == (1, {"c": 2})
    with pytest.raises(TypeError):
        change(held["a"]["b"][1])


def test_it_is_copied_pickled_and_written_like_any_other():
    held = frozen(TABLE)
    again = pickle.loads(pickle.dumps(held))
    assert again == held and type(again) is type(again["a"]) is FrozenDict
    assert copy.deepcopy(held) == copy.copy(held) == held
    assert json.loads(json.dumps(held)) == TABLE
    free = {**held, "d": 1}
    free["e"] = 2
    assert "e" not in held


def test_records_are_frozen_through_and_through():
    machine, model = load_machine("selene"), load_model("gpt3-175b")
    setting = Setting.of(machine, model, {})
    held = [
        machine.core_group.peak,
        machine.sources,
        machine.plan,
        model.plan,
        model.plan["mesh"],
        model.sources,
        model.model_copy(update={"plan": {"mesh": {"dp": 2}}}).plan["mesh"],
        machine.changed({"nodes": 4}).sources,
        setting.plan.mesh,
        POLICIES,
        POLICIES["O2"],
    ]
    for each in held:
        with pytest.raises(TypeError, match="cannot be changed"):
            each["new"] = 1
    assert pickle.loads(pickle.dumps(setting)).plan == setting.plan
