"""What points of a study have in common is made once, and is what each of them alone would make, to the last bit."""

import numpy as np
import pytest
from athanor.hardware.errors import AthanorError
from athanor.hardware.machine import load_machine
from athanor.sim.network.phases import flow_symmetry
from athanor.sim.simulate import simulate
from athanor.sim.studies.study import study
from athanor.workloads.loads import loads as load_models
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.lowering import lower_step
from athanor.workloads.model.model import load_model
from athanor.workloads.plan.form import layout_form, schedule_form
from athanor.workloads.plan.kept import KeptWork
from athanor.workloads.plan.plan import Plan
from athanor.workloads.plan.setting import Setting

PLANS = [
    ("cluster-64", "moda-tiny", {"mesh": "ep=4,dp=4", "dispatch": "node-limited"}),
    ("eos-h100", "moda-tiny", {"mesh": "ep=4,tp=2", "zero": "3"}),
]


def changes(table, before=""):
    """(dotted key, twice its value) of every number of a machine."""
    for key, value in table.items():
        if isinstance(value, dict) and key != "sources":
            yield from changes(value, f"{before}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{before}{key}", 2 * value


@pytest.mark.parametrize(("named", "model", "plan"), PLANS, ids=lambda each: each if isinstance(each, str) else "")
def test_machines_of_one_form_have_the_same_layouts_and_schedules(named, model, plan):
    machine, kept = load_machine(named), 0
    base = Setting.of(machine, model, plan)
    text = lower_step(base)[0].to_json()
    for key, value in changes(machine.model_dump(mode="json")):
        try:
            other = Setting.of(machine.changed({key: value}), model, plan)
            if layout_form(other) == layout_form(base):
                assert np.array_equal(other.layout.node, base.layout.node), key
        except AthanorError:
            continue
        if schedule_form(other) == schedule_form(base):
            assert lower_step(other)[0].to_json() == text, key
            kept += 1
    assert kept > 15, "rates leave the form as it is"
    for changed in ({"calibration.gemm_efficiency": 0.11}, {"calibration.network_efficiency": 0.12}):
        other = Setting.of(machine.changed(changed), model, plan)
        alike = schedule_form(other) == schedule_form(base)
        assert alike == (plan.get("dispatch") != "node-limited" or "calibration.gemm_efficiency" in changed)


OTHER = {
    "router": "zipf:0.7", "balancer": "swipe", "seed": 5, "drift": 0.5, "top_k": 2, "mesh": "ep=2,dp=4", "tokens_per_rank": 512,
    "micro_batch": 1, "seq_len": 64, "zero": "1", "precision": "O0", "expert_tensor": "whole", "recompute": "full",
}  # fmt: skip


def test_plans_of_one_form_of_loads_have_the_same_loads():
    base_plan = {"mesh": "ep=4,dp=2", "tokens_per_rank": 256, "router": "zipf:0.3", "balancer": "none"}

    def drawn(plan):
        loads = LoadModel(Setting.of("laptop", "moda-tiny", plan))
        return loads.form, [loads.sample(layer, step, 0) for layer in range(2) for step in (0, 3)]

    form, base = drawn(base_plan)
    same = 0
    for key, value in OTHER.items():
        assert key in Plan.options()
        other_form, other = drawn({**base_plan, key: value})
        if other_form == form:
            same += 1
            for one, two in zip(base, other, strict=True):
                assert np.array_equal(one.counted, two.counted), key
                assert (one.wanted_max_over_mean, one.moved_fraction) == (two.wanted_max_over_mean, two.moved_fraction)
    assert same >= 3
    assert drawn({**base_plan, "seed": 5})[0] != form


VARIED = {
    "machine.calibration.network_efficiency": [0.3, 0.8],
    "machine.calibration.gemm_efficiency": [0.2, 0.5],
    "machine.calibration.message_overhead": ["1 us", "9 us"],
    "machine.fabric.taper": ["1/4", "1/1"],
    "machine.node.interface_bandwidth": ["10 GB/s", "40 GB/s"],
    "machine.fabric.latency_top": ["1 us", "5 us"],
    "plan.tokens_per_rank": [256, 1024],
    "plan.overlap": ["none", "gradients"],
}


@pytest.mark.parametrize("more", [{"depth": "fluid"}, {"depth": "links"}, {"all_to_all": "two-level"}])
def test_a_study_finds_what_each_point_alone_finds(more):
    """Neighbours in one study differ in rates, in sizes and in schedules; any of them might take what is not its own."""
    plan = {"mesh": "ep=4,dp=64", "balancer": "swipe", **more}
    sample = {"method": "random", "points": 12, "seed": 3, "over": VARIED}
    found = study({"machine": "sunway-oceanlight", "model": "moda-tiny", "plan": plan, "sample": sample})
    assert list(found["status"]) == ["ok"] * 12, list(found["reason"])
    assert found["step_seconds"].nunique() >= 8
    machine = load_machine("sunway-oceanlight")
    for row in found.to_dict("records"):
        settings = {key.removeprefix("machine."): row[key] for key in VARIED if key.startswith("machine.")}
        own = {key.removeprefix("plan."): row[key] for key in VARIED if key.startswith("plan.")}
        run = simulate(machine.changed(settings), "moda-tiny", **{**plan, **own}).summary()
        assert run["step_seconds"] == row["step_seconds"]
        assert run["breakdown"] == {key: row[f"breakdown.{key}"] for key in run["breakdown"]}
        assert (
            run["traffic"] == {key: row.get(f"traffic.{key}") for key in run["traffic"]} if "traffic" in run else True
        )


def test_what_points_have_in_common_is_made_once(monkeypatch):
    counted = {"draws": 0, "classes": 0}

    def counting(name, real):
        def counts(*args, **kwargs):
            counted[name] += 1
            return real(*args, **kwargs)

        return counts

    monkeypatch.setattr(load_models, "token_counts", counting("draws", load_models.token_counts))
    monkeypatch.setattr(flow_symmetry, "_classes_of", counting("classes", flow_symmetry._classes_of))
    table = {
        "machine": "sunway-oceanlight", "model": "moda-tiny", "plan": {"mesh": "ep=4,dp=64", "balancer": "swipe"},
        "grid": {"machine.calibration.network_efficiency": [0.2, 0.4, 0.6, 0.8], "plan.zero": ["0", "1"]},
    }  # fmt: skip
    study({**table, "grid": {key: values[:1] for key, values in table["grid"].items()}})
    alone = dict(counted)
    assert alone["draws"] == load_model("moda-tiny").layers
    assert alone["classes"] > 0
    study(table)
    assert counted == {key: 2 * value for key, value in alone.items()}, "eight points make what one makes"


def test_no_more_is_kept_than_may_be():
    kept = KeptWork({"loads": 10.0})
    made = []

    def make(key, weight):
        return kept.of("loads", key, lambda: made.append(key) or key, lambda _: weight)

    for key in ("a", "b", "a", "c"):
        assert make(key, 4.0) == key
    assert make("a", 4.0) == "a"
    assert made == ["a", "b", "c"], "a was asked for after b, which had to go"
    make("b", 4.0)
    make("large", 11.0)
    make("large", 11.0)
    assert made == ["a", "b", "c", "b", "large", "large"]
